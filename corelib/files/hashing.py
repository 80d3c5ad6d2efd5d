"""Sha256 of texts, files and folders."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path


def sha256_of_text(text: str) -> str:
    """Hexadecimal sha256 of a text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sha256_of_path(path: Path) -> str:
    """Hexadecimal sha256 of a file, or of a folder: over the sorted relative paths and hashes of its files.

    Raises `OSError` for a pipe or a device, which has no end.
    """
    if path.is_dir():
        lines = (f"{file.relative_to(path).as_posix()} {sha256_of_path(file)}" for file in files_below(path))
        return sha256_of_text("\n".join(lines))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_below(folder: Path) -> list[Path]:
    """Every file below `folder` in a fixed order, except temporary files (with a leading dot)."""
    return sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
