# Money, kept in cents.

# show CENTS: cents as an amount, 1205 is 12.05.
show() {
    echo "$(($1 / 100)).$(($1 % 100))"
}
