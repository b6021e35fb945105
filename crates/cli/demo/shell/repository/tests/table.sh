. "$(dirname "$0")/check.sh"

is "columns are aligned" "a      1.00
long  10.00" "$(printf 'a\t1.00\nlong\t10.00\n' | align)"
is "no rows are no lines" "" "$(align </dev/null)"
exit "$failed"
