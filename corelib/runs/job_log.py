"""The log file of a job."""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path


def lines_of(path: Path) -> list[str]:
    """What the job has said so far; nothing where the disk of its log is full."""
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []


class JobLog(logging.handlers.WatchedFileHandler):
    """A job's log, and everything else that the process prints; made anew should the file be deleted.

    Snakemake deletes it when it starts another job for the same run, while this one may still compute. What cannot be
    written there, because its disk is full, goes where the process would have printed without it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._terminal = os.dup(sys.stderr.fileno())
        super().__init__(path, encoding="utf-8")
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record to the log, or to the terminal if the log cannot be opened."""
        try:
            super().emit(record)
        except OSError:  # it was deleted, and cannot be made anew
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Write a record to the terminal that could not be written to the log."""
        with suppress(OSError):
            os.write(self._terminal, f"{self.format(record)}\n".encode())

    def _open(self) -> TextIOWrapper:
        stream = super()._open()
        for printed in (sys.stdout, sys.stderr):
            os.dup2(stream.fileno(), printed.fileno())
        return stream
