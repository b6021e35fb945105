"""A week of work, from text to text."""


def summary(text, rate):
    """The report of lines such as `design 1h30m`, at a rate in cents an hour."""
    raise NotImplementedError("nobody has written this yet")
