. "$(dirname "$0")/check.sh"

is "every entry has a line and the total comes last" "design
review
total" "$(printf 'design\t15000\nreview\t7500\n' | report | cut -d ' ' -f 1)"
exit "$failed"
