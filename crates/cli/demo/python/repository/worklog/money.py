"""Money, kept in cents."""


def show(cents):
    """Cents as an amount: 1205 is `12.05`."""
    return f"{cents // 100}.{cents % 100}"
