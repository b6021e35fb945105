# Text in columns.

# align: two columns below each other, the second one at the right. Reads lines of a name, a tab
# and a value.
align() {
    awk -F '\t' '{ printf "%-6s  %s\n", $1, $2 }'
}
