# A week of work, from text to text.

# summary RATE: the report of lines such as "design 1h30m", at a rate in cents an hour.
summary() {
    echo "nobody has written this yet" >&2
    return 1
}
