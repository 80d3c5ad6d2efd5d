"""Text that can be printed on one line, whatever the user's files are called."""

from __future__ import annotations


def printable(text: str) -> str:
    """A sentence or a path with a question mark for each character that cannot be printed."""
    return "".join(mark if mark.isprintable() else "?" for mark in text)


def escaped(name: str) -> str:
    """A name itself if it can be printed, else as a Python literal with escapes, so that nothing is lost."""
    return name if name.isprintable() else ascii(name)
