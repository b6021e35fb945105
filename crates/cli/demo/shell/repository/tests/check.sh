# What the tests have in common: read by each of them.
cd "$(dirname "$0")/.." || exit 1
for part in lib/*.sh; do . "$part"; done
failed=0

# is WHAT EXPECTED FOUND
is() {
    if [ "$2" = "$3" ]; then
        echo "ok: $1"
    else
        printf 'FAILED: %s\nexpected:\n%s\nfound:\n%s\n' "$1" "$2" "$3"
        failed=1
    fi
}

# refused WHAT COMMAND...
refused() {
    what=$1
    shift
    if ("$@") >/dev/null 2>&1; then
        echo "FAILED: $what: $* was taken"
        failed=1
    else
        echo "ok: $what"
    fi
}
