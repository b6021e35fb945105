"""The report: a line for each entry, and the total below."""

from collections import namedtuple

from worklog import money

Entry = namedtuple("Entry", "name minutes cents")


def amount(entry):
    """What an entry costs."""
    return str(entry.cents / 100)


def total(entries):
    """What all of them cost."""
    return money.show(sum(entry.cents for entry in entries))


def lines(entries):
    """The lines of the report."""
    rows = [(entry.name, amount(entry)) for entry in entries]
    rows.append(("total", total(entries)))
    return [" ".join(row) for row in rows]
