"""Paths taken from files: confined to a folder, and resolved through links."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path, PurePosixPath

from corelib.errors import ArtefactError

MAX_PATH_LENGTH = 1024
"""Maximum number of characters of a path below a folder."""


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """The bytes of a regular file.

    Raises `OSError` if the file is missing, not a regular file, or larger than `max_bytes`. The file is opened without
    blocking: a pipe or a device in its place would block the reader for ever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes, expected at most {max_bytes:,}", str(path))
    return content


def path_inside(folder: Path, name: object) -> Path:
    """The path of `name` below `folder`, where `name` comes from a file.

    Every path in a manifest, a specification or an index is resolved by this function. Raises `ArtefactError` if
    `name` is not a relative path, or leads out of the folder by `..` or by a link.
    """
    path = unresolved_path_inside(folder, name)
    try:
        leads_out = not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # the links form a loop
        leads_out = True
    if leads_out:
        raise ArtefactError(f"{path}: it leads out of {folder}, expected a file in that folder, not a link out of it.")
    return path


def unresolved_path_inside(folder: Path, name: object) -> Path:
    """As `path_inside`, but checks the name only and resolves no links."""
    relative = PurePosixPath(name) if isinstance(name, str) and name.isprintable() else PurePosixPath("..")
    if relative.is_absolute() or ".." in relative.parts or not relative.parts or len(str(relative)) > MAX_PATH_LENGTH:
        raise ArtefactError(
            f"{folder}: the file {str(name)[:80]!r} leads out of its folder, expected the name of a file below it."
        )
    return folder / relative


def resolve_links(path: Path) -> Path:
    """Resolve the links of a path; a result below the working directory is relative to it.

    Raises `ArtefactError` if the links form a loop.
    """
    try:
        real = path.resolve()
    except (OSError, RuntimeError):
        raise ArtefactError(f"{path}: its links form a loop, expected a file or a folder.") from None
    return real.relative_to(Path.cwd()) if real.is_relative_to(Path.cwd()) else real


def why_not_writable(folder: Path) -> str | None:
    """The reason why nothing can be written below a folder, which need not exist yet; None if writing is possible."""
    for part in (folder, *folder.parents):
        if part.is_symlink() and not part.exists():
            return f"{part}: a link to {part.readlink()}, which is missing, expected a folder"
        if part.exists() and not part.is_dir():
            return f"{part}: not a folder, expected one"
    if not os.access(nearest_existing(folder), os.W_OK):
        return f"{folder}: not writable, expected a writable folder"
    return None


def nearest_existing(path: Path) -> Path:
    """The path itself if it exists, else the nearest folder above it that exists: it is on the disk of the path."""
    return next(part for part in (path.absolute(), *path.absolute().parents) if part.exists())
