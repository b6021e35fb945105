# Durations as people write them: 90m, 2h, 1h30m.

# minutes TEXT: the minutes in a duration.
minutes() {
    case $1 in
    *h*) echo "$((${1%%h*} * 60))" ;;
    *m) echo "${1%m}" ;;
    *) echo "not a duration: $1" >&2 && return 1 ;;
    esac
}
