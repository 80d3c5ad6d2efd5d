"""Snakemake's messages about failed jobs, with the end of each log, which contains the error or the traceback.

Snakemake's own formatter appends all logs of the job in full. `LogEndFormatter` wraps that formatter: it turns this off
and appends the last lines of the logs.
"""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

from snakemake.logging import DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent

from corelib.cluster.slurm_job_states import final_state_of_log
from corelib.cluster.slurm_notes import SlurmNotes
from corelib.cluster.slurm_queue import NOTES

MAX_LINES = 25
"""Number of lines that are shown of a log; a traceback through a library is about as long."""

SLURM_LOGS = ".snakemake/slurm_logs"
"""Folder of Slurm's own logs: the output of Snakemake on the node, relevant if the job has written no log."""


class LogEndFormatter(logging.Formatter):
    """Formats Snakemake's messages with the ends of a failed job's logs instead of the full logs.

    Args:
        formatter: Snakemake's formatter. Its option `show_failed_logs` is turned off.
    """

    def __init__(self, formatter: DefaultFormatter) -> None:
        super().__init__()
        self._formatter = formatter
        formatter.show_failed_logs = False

    def format(self, record: logging.LogRecord) -> str:
        """The text of a message."""
        message = self._formatter.format(record)
        ends = "\n".join(log_ends(_logs_of(record)))
        if not ends:
            return message
        return f"{message}\n{textwrap.indent(ends, '    ') if getattr(record, 'indent', False) else ends}"


def install_log_ends(handlers: Iterable[logging.Handler]) -> None:
    """Make handlers that show the full logs of failed jobs show only their ends.

    Handlers for which the user has turned logs off, and those of a logger plugin with its own format, are not changed.
    """
    for handler in handlers:
        formatter = handler.formatter
        if isinstance(formatter, DefaultFormatter) and formatter.show_failed_logs:
            handler.setFormatter(LogEndFormatter(formatter))


def _logs_of(record: logging.LogRecord) -> list[str]:
    """The logs in a record about a failed job or a failed group of jobs."""
    fields = vars(record)
    match fields.get("event"):
        case LogEvent.JOB_ERROR:
            return [*fields.get("log", [])]
        case LogEvent.GROUP_ERROR:
            jobs = fields.get("job_error_info", [])
            return [*fields.get("aux_logs", []), *(log for job in jobs for log in job.get("log", []))]
        case _:
            return []


def log_ends(logs: Iterable[str]) -> Iterator[str]:
    """The last lines of a failed job's logs or, if the job has written none, of the scheduler's logs."""
    paths = [Path(log) for log in logs]
    job_logs = [path for path in paths if SLURM_LOGS not in path.as_posix()]
    scheduler_logs = [path for path in paths if path not in job_logs]
    for path in scheduler_logs:
        if sentence := final_state_of_log(path, SlurmNotes(NOTES)):
            yield sentence
    for path in [path for path in job_logs if _has_content(path)] or scheduler_logs:
        lines = _lines(path)
        is_complete = len(lines) <= MAX_LINES
        yield f"Logfile {path}:" if is_complete else f"The last {MAX_LINES} of {len(lines)} lines of {path}:"
        yield from (f"    {line}" for line in lines[-MAX_LINES:])


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return [f"not readable: {error.strerror}"]
