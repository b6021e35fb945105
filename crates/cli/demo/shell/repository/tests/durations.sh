. "$(dirname "$0")/check.sh"

is "one part" 90 "$(minutes 90m)"
is "one part" 120 "$(minutes 2h)"
is "two parts" 90 "$(minutes 1h30m)"
for text in "" soon 1h30 "1h, later"; do
    refused "what is left over is refused" minutes "$text"
done
exit "$failed"
