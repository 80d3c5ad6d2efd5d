"""Files in the place of others: Git LFS pointers, web pages, broken links."""

from __future__ import annotations

from pathlib import Path

from corelib.errors import AssetError
from corelib.files.printable import escaped

BEGINNINGS = {
    b"version https://git-lfs.github.com/spec/": (
        "a pointer of Git LFS and not the file itself; `git lfs pull` in its repository fetches that"
    ),
    b"<!doctype html": "a web page and not the file itself; fetch it again",
    b"<html": "a web page and not the file itself; fetch it again",
}
"""How files begin that stand in the place of others, in lower case, and what they are, in words."""

MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
"""Byte order marks of UTF-8 and UTF-16, with which editors of other systems begin a text."""

LONGEST_BEGINNING = 64

FILES = (".bin", ".json", ".safetensors", ".txt")
"""How the names of files end that libraries look for in the folder of a part."""

UNPRINTABLE = "its name has characters that cannot be printed; rename it"
"""What is wrong with a name: bytes that are no UTF-8, blanks that are none, control characters."""


def stands_in(content: bytes) -> str | None:
    """What a file is that stands in the place of another one, by its first bytes, in words."""
    beginning = content[:LONGEST_BEGINNING].lstrip().lower()
    return next((said for start, said in BEGINNINGS.items() if beginning.startswith(start)), None)


def beginning_of(path: Path) -> bytes:
    """The first bytes of a file; none of what is no regular file."""
    if not path.is_file():
        return b""
    with path.open("rb") as stream:
        return stream.read(LONGEST_BEGINNING)


def check_files(path: Path) -> None:
    """Raise `AssetError` if a file, or one in a folder, stands in the place of another, or its name has no spelling.

    Raises `OSError` if one is not readable.
    """
    for file in files_of(path):
        if file.is_dir():
            raise AssetError(f"{file}: a folder, expected a file.")
        if not str(file.relative_to(path)).isprintable():
            raise AssetError(f"{escaped(str(file))}: {UNPRINTABLE}.")
        if file.is_symlink() and not file.exists():
            target = escaped(str(file.readlink()))
            raise AssetError(f"{file}: a link to {target}, which is missing; fetch the file again, or remove the link.")
        beginning = beginning_of(file)
        if (what := stands_in(beginning)) is not None:
            raise AssetError(f"{file}: {what}.")
        if file.suffix in (".json", ".txt") and beginning.startswith(MARKS):
            raise AssetError(f"{file}: it begins with a byte order mark; save it as UTF-8 without one.")


def files_of(path: Path) -> list[Path]:
    """A file itself, or all files in a folder but hidden ones, and folders that are called like files.

    Raises `OSError` if a folder may not be read.
    """
    if not path.is_dir():
        return [path]
    found = []
    for entry in sorted(path.iterdir()):
        if entry.suffix in FILES or not (entry.is_dir() or entry.name.startswith(".")):
            found.append(entry)
        elif entry.is_dir():
            found += files_of(entry)
    return found
