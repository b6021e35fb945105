# Every test there is.
cd "$(dirname "$0")" || exit 1
failed=0
for test in durations money table report summary; do
    echo "$test"
    sh "./$test.sh" || failed=1
done
exit "$failed"
