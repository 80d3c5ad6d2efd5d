"""The log file of a job."""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path


def log_lines(path: Path) -> list[str]:
    """The lines of a job's log so far; empty if there is no regular file, as when its disk is full."""
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


EARLIER_SUFFIX = ".earlier"
"""Suffix of the second name of the log of an unfinished job; Snakemake deletes the first before the next attempt."""

MAX_EARLIER_LINES = 1_000
"""Maximum number of lines that are kept of the logs of earlier attempts."""


def earlier_log(path: Path) -> Path:
    """The second name of a job's log until the job has succeeded."""
    return path.with_name(f".{path.name}{EARLIER_SUFFIX}")


class JobLog(logging.handlers.WatchedFileHandler):
    """Handler for a job's log file, to which all other output of the process is redirected as well.

    The file is created again if it is deleted: Snakemake deletes it when it starts another job for the same run, while
    this job may still run. It begins with the logs of the earlier attempts, if the job was interrupted. Records that
    cannot be written, as when the disk is full, go to the original standard error.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._terminal = os.dup(sys.stderr.fileno())
        super().__init__(path, encoding="utf-8")
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record to the log, or to the original standard error if the log cannot be opened."""
        try:
            super().emit(record)
        except OSError:  # it was deleted and cannot be created again
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Write to the original standard error a record that could not be written to the log."""
        with suppress(OSError):
            os.write(self._terminal, f"{self.format(record)}\n".encode())

    def _open(self) -> TextIOWrapper:
        path = Path(self.baseFilename)
        earlier = _earlier_lines(path)
        stream = super()._open()
        with suppress(OSError):  # no room, or a file system without links: the log is then that of this attempt
            if earlier and stream.tell() == 0:
                stream.write("\n".join([*earlier, "---- next attempt ----", ""]))
                stream.flush()
            if path.is_file():  # a device or a pipe has no lines to keep
                earlier_log(path).unlink(missing_ok=True)
                earlier_log(path).hardlink_to(path)
        for printed in (sys.stdout, sys.stderr):
            os.dup2(stream.fileno(), printed.fileno())
        return stream


def _earlier_lines(path: Path) -> list[str]:
    """The last lines of the logs of earlier attempts of a job; empty if there was none."""
    with suppress(OSError):
        lines = log_lines(earlier_log(path))
        omitted = len(lines) - MAX_EARLIER_LINES
        return [f"({omitted} earlier lines omitted)", *lines[omitted:]] if omitted > 0 else lines
    return []
