"""Text in columns."""


def align(rows):
    """Two columns below each other, the second one at the right."""
    width = len(rows[0][0])
    return [f"{name.ljust(width)}  {value}" for name, value in rows]
