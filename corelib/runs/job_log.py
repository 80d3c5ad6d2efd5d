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
    """The lines of a job's log so far; empty if there is no file, as when its disk is full."""
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []


class JobLog(logging.handlers.WatchedFileHandler):
    """Handler for a job's log file, to which all other output of the process is redirected as well.

    The file is created again if it is deleted: Snakemake deletes it when it starts another job for the same run, while
    this job may still run. Records that cannot be written, as when the disk is full, go to the original standard error.
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
        stream = super()._open()
        for printed in (sys.stdout, sys.stderr):
            os.dup2(stream.fileno(), printed.fileno())
        return stream
