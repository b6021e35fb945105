# The report: a line for each entry, and the total below.

# amount CENTS: what an entry costs.
amount() {
    echo "$(($1 / 100)).$(($1 % 100))"
}

# rows: the rows of the report. Reads lines of a name, a tab and cents.
rows() {
    total=0
    while IFS="$(printf '\t')" read -r name cents; do
        printf '%s\t%s\n' "$name" "$(amount "$cents")"
        total=$((total + cents))
    done
    printf 'total\t%s\n' "$(show "$total")"
}

# report: the report. Reads what rows reads.
report() {
    rows | tr '\t' ' '
}
