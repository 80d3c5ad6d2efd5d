"""Paths that files name: checked not to lead out of their folder, and followed through links."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path, PurePosixPath

from corelib.errors import ArtefactError

LONGEST_NAME = 1024
"""Characters of a path below a folder."""


def content_of(path: Path, most: int) -> bytes:
    """The bytes of a regular file. Raises `OSError` if there is none, it is no regular file, or has more than `most`.

    Opened without waiting: a pipe or a device in the place of a file would keep the reader for ever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        content = stream.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes, at most {most:,} can be meant", str(path))
    return content


def below(folder: Path, name: object) -> Path:
    """The path of what a file calls `name`, which has to lie below `folder`, with all links followed.

    Everything that a manifest, a specification or an index says of where a file lies goes through here. Raises
    `ArtefactError` if it is no relative path, or leads out of the folder by `..` or by a link.
    """
    path = named_below(folder, name)
    try:
        leads_out = not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # links in a circle
        leads_out = True
    if leads_out:
        raise ArtefactError(f"{path}: it leads out of {folder}, expected a file below it and not a link to elsewhere.")
    return path


def named_below(folder: Path, name: object) -> Path:
    """As `below`, by the name alone."""
    said = PurePosixPath(name) if isinstance(name, str) and name.isprintable() else PurePosixPath("..")
    if said.is_absolute() or ".." in said.parts or not said.parts or len(str(said)) > LONGEST_NAME:
        raise ArtefactError(
            f"{folder}: the file {str(name)[:80]!r} leads out of its folder, expected a name of one below it."
        )
    return folder / said


def followed(path: Path) -> Path:
    """Where a path leads through the links in it; below the working directory, as seen from there.

    Raises `ArtefactError` if it leads in a circle.
    """
    try:
        real = path.resolve()
    except (OSError, RuntimeError):
        raise ArtefactError(f"{path}: its links lead in a circle, expected a file or a folder.") from None
    return real.relative_to(Path.cwd()) if real.is_relative_to(Path.cwd()) else real


def fault_of_folder(folder: Path) -> str | None:
    """Why nothing can be written below a folder that may not be there yet, in words."""
    for part in (folder, *folder.parents):
        if part.is_symlink() and not part.exists():
            return f"{part}: a link to {part.readlink()}, which is missing, expected a folder"
        if part.exists() and not part.is_dir():
            return f"{part}: no folder, expected one"
    if not os.access(existing_part(folder), os.W_OK):
        return f"{folder}: cannot be written to, expected a writable folder"
    return None


def existing_part(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there: where what is written to it will lie."""
    return next(part for part in (path.absolute(), *path.absolute().parents) if part.exists())
