. "$(dirname "$0")/check.sh"

is "whole amounts" 1.23 "$(show 123)"
is "cents have two digits" 12.05 "$(show 1205)"
is "cents have two digits" 0.05 "$(show 5)"
exit "$failed"
