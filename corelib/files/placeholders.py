"""Placeholders in the place of files: Git LFS pointers, web pages, broken links."""

from __future__ import annotations

from pathlib import Path

from corelib.errors import AssetError
from corelib.files.text import escaped

PLACEHOLDERS = {
    b"version https://git-lfs.github.com/spec/": (
        "a Git LFS pointer, not the file itself; run `git lfs pull` in its repository"
    ),
    b"<!doctype html": "a web page, not the file itself; fetch it again",
    b"<html": "a web page, not the file itself; fetch it again",
}
"""The first bytes of placeholders, in lower case, and a description of each."""

BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
"""Byte order marks of UTF-8 and UTF-16, which some editors write at the start of a text."""

BEGINNING_LENGTH = 64

FILE_EXTENSIONS = (".bin", ".json", ".safetensors", ".txt")
"""Extensions of the files that libraries look for in the folder of a pipeline's part."""

UNPRINTABLE = "its name has characters that cannot be printed; rename it"
"""The fault of a name with bytes that are not UTF-8, with unusual space characters, or with control characters."""


def placeholder_kind(content: bytes) -> str | None:
    """A description of the placeholder that begins with these bytes; None if they are not those of a placeholder."""
    beginning = content[:BEGINNING_LENGTH].lstrip().lower()
    return next((description for start, description in PLACEHOLDERS.items() if beginning.startswith(start)), None)


def first_bytes(path: Path) -> bytes:
    """The first bytes of a file; empty if it is not a regular file."""
    if not path.is_file():
        return b""
    with path.open("rb") as stream:
        return stream.read(BEGINNING_LENGTH)


def check_no_placeholders(path: Path) -> None:
    """Raise `AssetError` if a file, or one in a folder, is a placeholder or has a name that cannot be printed.

    Raises `OSError` if a file is not readable.
    """
    for file in list_files(path):
        if file.is_dir():
            raise AssetError(f"{file}: a folder, expected a file.")
        if not str(file.relative_to(path)).isprintable():
            raise AssetError(f"{escaped(str(file))}: {UNPRINTABLE}.")
        if file.is_symlink() and not file.exists():
            target = escaped(str(file.readlink()))
            raise AssetError(f"{file}: a link to {target}, which is missing; fetch the file again, or remove the link.")
        beginning = first_bytes(file)
        if (description := placeholder_kind(beginning)) is not None:
            raise AssetError(f"{file}: {description}.")
        if file.suffix in (".json", ".txt") and beginning.startswith(BYTE_ORDER_MARKS):
            raise AssetError(f"{file}: it begins with a byte order mark; save it as UTF-8 without one.")


def list_files(path: Path) -> list[Path]:
    """A file itself, or all files in a folder except hidden ones, and folders with the extension of a file.

    Raises `OSError` if a folder is not readable.
    """
    if not path.is_dir():
        return [path]
    files = []
    for entry in sorted(path.iterdir()):
        if entry.suffix in FILE_EXTENSIONS or not (entry.is_dir() or entry.name.startswith(".")):
            files.append(entry)
        elif entry.is_dir():
            files += list_files(entry)
    return files
