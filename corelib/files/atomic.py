"""Atomic writes: a file or a folder appears complete or not at all.

A stage writes its files into its own folder, and last of all `manifest.json` with the sha256 of each of them.
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

FILE_SYSTEM_ERRORS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
"""Error numbers for which the file system is to blame, not the code: missing permission or missing space."""

UMASK = os.umask(0)
"""The umask of this process. `tempfile` creates files with fewer permissions than it allows."""

os.umask(UMASK)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, delete it if the block fails.

    Raises `OSError` with the name of `path` if permission or space is missing, however a library in the block reports
    that. Raises `ArtefactError` if `path` is a folder that is not empty.
    """
    if path.is_dir() and not path.is_symlink():
        with suppress(OSError):
            path.rmdir()  # succeeds for an empty folder, which holds nothing to keep
    if path.is_dir():
        raise folder_instead_of_file_error(path)
    with _errors_naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(descriptor)
    temporary = Path(name)
    try:
        with _errors_naming(path, temporary):
            yield temporary
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.chmod(0o666 & ~UMASK)
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; it replaces `path` if the block succeeds, else it is deleted.

    Raises `OSError` with the name of `path` if permission or space is missing.
    """
    with _errors_naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        with _errors_naming(path, temporary):
            yield temporary
            temporary.chmod(0o777 & ~UMASK)
            if path.exists():
                shutil.rmtree(path)
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def folder_instead_of_file_error(path: Path) -> ArtefactError:
    """The error for a folder in the place of a file."""
    return ArtefactError(f"{path}: a folder, expected a file; delete it and ask for the target again.")


@contextmanager
def _errors_naming(path: Path, probe: Path | None = None) -> Iterator[None]:
    """Raise each error of `FILE_SYSTEM_ERRORS` in the block as an `OSError` with the name of `path`.

    Libraries report a full disk in their own words or not at all. If their error has no number, a further write to
    `probe`, the file or folder that the block writes, shows whether the disk is full.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FILE_SYSTEM_ERRORS:
            name = str(error.filename or "")
            is_ours = f".{path.name}." in name or not name
            number = error.errno if is_ours else None
        elif (match := re.search(r"\b(?:os error|errno) (\d+)", str(error))) and int(
            match.group(1)
        ) in FILE_SYSTEM_ERRORS:
            number = int(match.group(1))
        else:
            number = None if probe is None else _error_of_write(probe)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _error_of_write(probe: Path) -> int | None:
    """The number of the `FILE_SYSTEM_ERRORS` error of a further write to a file or into a folder; None without one."""
    try:
        with (probe / "more" if probe.is_dir() else probe).open("ab") as stream:
            stream.write(bytes(1 << 16))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return error.errno if error.errno in FILE_SYSTEM_ERRORS else None
    return None


def write_text(path: Path, text: str) -> None:
    """Write `text` atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
