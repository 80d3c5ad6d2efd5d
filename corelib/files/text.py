"""Text for people: printable names, normalised names, sizes in bytes, counts."""

from __future__ import annotations

import re


def printable(text: str) -> str:
    """A sentence or a path with a question mark for each character that cannot be printed."""
    return "".join(mark if mark.isprintable() else "?" for mark in text)


def escaped(name: str) -> str:
    """A name itself if it can be printed, else as a Python literal with escapes, so that nothing is lost."""
    return name if name.isprintable() else ascii(name)


def normalise_name(name: str) -> str:
    """A name in lower case, with spaces instead of underscores."""
    return re.sub(r"[\s_]+", " ", name).strip().lower()


def format_bytes(count: float) -> str:
    """A number of bytes in the largest unit that leaves a number above one."""
    if not count:
        return "0 B"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def counted(number: int, noun: str) -> str:
    """A number and a noun, in the plural unless the number is one: `1 run`, `2,000 runs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def natural_key(text: str) -> list[tuple[int, str]]:
    """A sort key that puts `train-2` before `train-10`, as if the numbers had leading zeros."""
    parts = re.split(r"(\d+)", text)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
