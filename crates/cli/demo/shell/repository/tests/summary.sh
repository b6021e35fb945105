. "$(dirname "$0")/check.sh"

is "a week adds up" "design        90.04
code review   45.02
total        135.06" "$(printf '\ndesign 1h30m\ncode review 45m\n' | summary 6003)"
is "a week without work costs nothing" "total  0.00" "$(summary 6000 </dev/null)"
exit "$failed"
