"""Durations as people write them: `90m`, `2h`, `1h30m`."""

import re

UNITS = {"h": 60, "m": 1}


def minutes(text):
    """The minutes in a duration."""
    match = re.match(r"(\d+)([hm])", text)
    if not match:
        raise ValueError(f"not a duration: {text!r}")
    number, unit = match.groups()
    return int(number) * UNITS[unit]
