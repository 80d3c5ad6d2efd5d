"""The last line of an interrupted or forced invocation of Snakemake: what was kept, and how to go on."""

from __future__ import annotations

import atexit
import functools
import logging
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from snakemake_interface_logger_plugins.common import LogEvent

from corelib.runs.job import INTERRUPTED_STATUS

INTERRUPTED_JOB = re.compile(
    r"CalledProcessError[\s\S]*(died with <Signals\.SIG(INT|TERM)"
    rf"|returned non-zero exit status (130|143|{INTERRUPTED_STATUS})\b)"
)
"""Snakemake's message about a job that a termination signal has ended."""

INTERRUPTED_LOG = re.compile(r"received (SIG(INT|TERM)|a termination signal)")
"""The last line of the log of a job that a termination signal has ended."""

CONSEQUENCES = ("At least one job did not complete successfully.", "Exiting because a job execution failed.")
"""Snakemake's messages at the end of an invocation with failed jobs."""


class InterruptedJobsHidden(logging.Filter):
    """Hides Snakemake's messages about jobs that Ctrl-C has ended; errors of other jobs are shown as always."""

    def __init__(self) -> None:
        super().__init__()
        self._is_failed = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a message is shown."""
        event, message = vars(record).get("event"), record.getMessage()
        if any(consequence in message for consequence in CONSEQUENCES):
            return self._is_failed
        if event == LogEvent.ERROR:
            is_shown = INTERRUPTED_JOB.search(message) is None
        elif event == LogEvent.JOB_ERROR:
            logs = [Path(log) for log in vars(record).get("log") or []]
            is_shown = any(not _is_interrupted(log) for log in logs)
        else:
            return True
        self._is_failed |= is_shown
        return is_shown


def _is_interrupted(log: Path) -> bool:
    """Whether the job of a log was ended by a termination signal, perhaps before it wrote its first line."""
    with suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        return not lines or INTERRUPTED_LOG.search(lines[-1]) is not None
    return True


def _hide_interrupted_jobs(handlers: Iterable[logging.Handler]) -> None:
    """Add the filter to the handlers that write to the terminal; the file in `.snakemake/log/` has all messages."""
    for handler in handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.addFilter(InterruptedJobsHidden())


@functools.cache  # once in a process
def explain_interruption(handlers: tuple[logging.Handler, ...]) -> None:
    """From now on, Ctrl-C makes this process print one line at its end: that nothing is lost, and how to go on.

    Args:
        handlers: Snakemake's handlers.
    """
    earlier = signal.getsignal(signal.SIGINT)

    def interrupted(number: int, frame: FrameType | None) -> None:
        _print_at_the_end()
        _hide_interrupted_jobs(handlers)
        if callable(earlier):
            earlier(number, frame)

    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, interrupted)


@functools.cache  # Ctrl-C may be pressed again
def _print_at_the_end() -> None:
    atexit.register(_print_how_to_go_on)


def _print_how_to_go_on() -> None:
    command = command_of(sys.argv)
    with suppress(OSError):
        print(
            f"\nInterrupted: complete results and saved states are kept; to continue, repeat the command: {command}",
            file=sys.stderr,
            flush=True,
        )


def command_of(arguments: Sequence[str]) -> str:
    """The command of this process as the user can type it.

    Args:
        arguments: the path of the program, and its arguments.
    """
    program, *others = arguments
    is_module = Path(program).name == "__main__.py"
    typed = [_typed(sys.executable), "-m", "snakemake"] if is_module else [_typed(program)]
    return shlex.join([*typed, *others])


def _typed(path: str) -> str:
    """The name of a program if it is found on the `PATH`, else its path."""
    absolute = Path(path).absolute()
    found = shutil.which(absolute.name)
    if found is not None and Path(found).absolute() == absolute:
        return absolute.name
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute)


def explain_forcing(dag_settings: Any) -> None:
    """Print that complete runs were not computed anew, if the user has forced jobs (`-R`, `-f` or `-F`).

    Args:
        dag_settings: Snakemake's settings of the targets.
    """
    if dag_settings.forcerun or dag_settings.forcetargets or dag_settings.forceall:
        print(
            "Forced jobs (-R, -f or -F) of complete runs have only checked the files and computed nothing. To compute "
            "a run again, remove it first: "
            "python -m corelib clean results/STUDY/table1.csv TASK ROW --delete",
            file=sys.stderr,
            flush=True,
        )
