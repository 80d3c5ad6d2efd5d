"""What Snakemake's messages show of a failed job: the end of its log, where the sentence or the traceback is.

Snakemake's own formatter appends every log of the job whole. `LogEndFormatter` stands between that formatter and its
handler: it has the logs left out, and appends their last lines.
"""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

from snakemake.logging import DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent

from corelib.cluster.slurm_queue import how_it_ended

LINES = 25
"""Of a log, counted from its end; a traceback through a library is about as long."""

SCHEDULERS = ".snakemake/slurm_logs"
"""Where Slurm's own logs lie: what Snakemake says of itself on the node, of interest if the job said nothing."""


class LogEndFormatter(logging.Formatter):
    """Snakemake's messages with the end of a failed job's logs instead of the whole logs.

    Args:
        snakemakes: Snakemake's formatter. It is told to leave out the logs.
    """

    def __init__(self, snakemakes: DefaultFormatter) -> None:
        super().__init__()
        self._snakemakes = snakemakes
        snakemakes.show_failed_logs = False

    def format(self, record: logging.LogRecord) -> str:
        """The text of a message."""
        message = self._snakemakes.format(record)
        ends = "\n".join(ends_of(_logs_of(record)))
        if not ends:
            return message
        return f"{message}\n{textwrap.indent(ends, '    ') if getattr(record, 'indent', False) else ends}"


def show_ends_of_logs(handlers: Iterable[logging.Handler]) -> None:
    """Make handlers that show whole logs of failed jobs show their ends.

    Handlers whose user does not want logs, and those of a logger plugin with a format of its own, stay as they are.
    """
    for handler in handlers:
        formatter = handler.formatter
        if isinstance(formatter, DefaultFormatter) and formatter.show_failed_logs:
            handler.setFormatter(LogEndFormatter(formatter))


def _logs_of(record: logging.LogRecord) -> list[str]:
    """The logs that a message about a failed job, or a failed group of jobs, names."""
    fields = vars(record)
    match fields.get("event"):
        case LogEvent.JOB_ERROR:
            return [*fields.get("log", [])]
        case LogEvent.GROUP_ERROR:
            jobs = fields.get("job_error_info", [])
            return [*fields.get("aux_logs", []), *(log for job in jobs for log in job.get("log", []))]
        case _:
            return []


def ends_of(logs: Iterable[str]) -> Iterator[str]:
    """The last lines of a failed job's log, or, if the job did not come to write one, of the scheduler's."""
    paths = [Path(log) for log in logs]
    own = [path for path in paths if SCHEDULERS not in path.as_posix()]
    theirs = [path for path in paths if path not in own]
    for path in theirs:
        if said := how_it_ended(path):
            yield said
    chosen = [path for path in own if _has_content(path)] or theirs
    for path in chosen:
        lines = _lines(path)
        whole = len(lines) <= LINES
        yield f"Logfile {path}:" if whole else f"The last {LINES} of {len(lines)} lines of {path}:"
        yield from (f"    {line}" for line in lines[-LINES:])


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return [f"not readable: {error.strerror}"]
