"""Files that appear whole or not at all, and the manifests that vouch for them.

A stage writes its files into its own folder and last of all `manifest.json`, which holds the sha256 of each of them.
Manifests are the edges of the workflow: small, compared by content, and safe for Snakemake to delete.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from corelib.errors import ArtefactError, UserError

NO_ROOM = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
"""Faults of the place and not of the code."""

UMASK = os.umask(0)
"""What this process takes away from permissions; temporary files are made with fewer than that."""

os.umask(UMASK)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends well, and vanishes when it does not.

    Raises `OSError` under the name of `path` if there is no room for it, whatever a library in the block says of that,
    and `ArtefactError` if a folder that is not empty has that name.
    """
    if path.is_dir() and not path.is_symlink():
        with suppress(OSError):
            path.rmdir()  # an empty one is nobody's
    if path.is_dir():
        raise folder_in_the_way(path)
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(descriptor)
    temporary = Path(name)
    try:
        with _named(path, temporary):
            yield temporary
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.chmod(0o666 & ~UMASK)
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """An empty temporary folder beside `path` that takes its place when the block ends well, and vanishes if not.

    Raises `OSError` under the name of `path` if there is no room for it.
    """
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        with _named(path, temporary):
            yield temporary
            temporary.chmod(0o777 & ~UMASK)
            if path.exists():
                shutil.rmtree(path)
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def folder_in_the_way(path: Path) -> ArtefactError:
    """The error for a folder in the place of a file."""
    return ArtefactError(f"{path}: a folder, expected a file there; delete it and ask for the target again.")


@contextmanager
def _named(path: Path, written: Path | None = None) -> Iterator[None]:
    """Let a fault of the place bear the name of the file that was to be written there.

    Libraries say that a disk is full in words of their own, or not at all: where they give no number, the disk itself
    is asked, by writing some more of what is `written` in the block.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            name = str(error.filename or "")
            is_ours = f".{path.name}." in name or not name
            fault = error.errno if is_ours else None
        elif (said := re.search(r"\b(?:os error|errno) (\d+)", str(error))) and int(said.group(1)) in NO_ROOM:
            fault = int(said.group(1))
        else:
            fault = None if written is None else _refusal(written)
        if fault is None:
            raise
        raise OSError(fault, os.strerror(fault), str(path)) from error


def _refusal(written: Path) -> int | None:
    """Why nothing more can be written to a file, or into a folder, if that is so: the system's number of the error."""
    try:
        with (written / "more" if written.is_dir() else written).open("ab") as stream:
            stream.write(bytes(1 << 16))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return error.errno if error.errno in NO_ROOM else None
    return None


def write_text(path: Path, text: str) -> None:
    """Write `text` whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
