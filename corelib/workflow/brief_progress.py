"""Snakemake's messages in a few lines: how far it is, and how long it will take; errors as always.

A logger plugin of Snakemake would have to be installed as a package. This filter is added to the handlers that
Snakemake has already, if the environment variable `CORELIB_PROGRESS` is `brief`. The full messages are in
`.snakemake/log/`.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from snakemake_interface_logger_plugins.common import LogEvent

from corelib.costs.device_time import JOB_SECONDS, core_seconds
from corelib.costs.forecast import Forecast
from corelib.files.text import counted
from corelib.runs.layout import RUNS

VARIABLE, BRIEF = "CORELIB_PROGRESS", "brief"

INTERVAL = 60.0
"""Minimum number of seconds between two lines."""

SILENCE = 180.0
"""Number of seconds after which a line names the job that is waited for, if no job has ended."""

CERTAIN_SHARE = 0.05
"""Share of the work after which the measured speed predicts the rest."""

HIDDEN = (
    LogEvent.JOB_INFO,
    LogEvent.JOB_STARTED,
    LogEvent.GROUP_INFO,
    LogEvent.SHELLCMD,
    LogEvent.JOB_FINISHED,
    LogEvent.PROGRESS,
)

HIDDEN_TEXTS = ("Select jobs to execute", "Touching output file")
"""Beginnings of messages without an event that Snakemake prints for each job."""


class BriefProgress(logging.Filter):
    """Hides the messages about single jobs, except errors, and prints a line about all of them every minute.

    If no job ends for three minutes, `name_longest_job` prints the name of the job that was started first.

    Args:
        seconds: seconds of a core that each job of a run takes, by the name of the run.
        total: seconds of a core for all jobs.
        cores: number of cores; None if the jobs run on devices whose speed is not known.
        clock: the time in seconds.
    """

    def __init__(
        self,
        seconds: Mapping[str, float],
        total: float,
        cores: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._seconds, self._total, self._cores, self._clock = seconds, total, cores, clock
        self._began = clock()
        self._last: float | None = None
        self._jobs: dict[int, float] = {}
        self._started: dict[int, tuple[str, float]] = {}  # what a job makes, and when it was started
        self._done = 0.0
        self._counts = (0, 0)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a message is shown."""
        fields = vars(record)
        event = fields.get("event")
        if event == LogEvent.JOB_INFO:
            outputs = [str(output) for output in fields.get("output") or []]
            self._jobs[fields["jobid"]] = self._seconds_of(outputs)
            self._started[fields["jobid"]] = _made_by(outputs), self._clock()
        elif event == LogEvent.JOB_FINISHED:
            self._done += self._jobs.pop(fields["job_id"], 0.0)
            self._started.pop(fields["job_id"], None)
        elif event == LogEvent.JOB_ERROR:
            self._started.pop(fields.get("jobid", -1), None)
        elif event == LogEvent.PROGRESS:
            self._print(fields["done"], fields["total"])
        elif event == LogEvent.RUN_INFO:
            self._counts = (0, (fields.get("stats") or {}).get("total", 0))
        if event is None:
            return not record.getMessage().startswith(HIDDEN_TEXTS)
        return event not in HIDDEN

    def name_longest_job(self) -> None:
        """Print the name of the job that was started first, if no line was printed for a while."""
        now = self._clock()
        last = self._began if self._last is None else self._last
        if not self._started or now - last < SILENCE:
            return
        self._last = now
        made, since = min(self._started.values(), key=lambda job: job[1])
        done, total = self._counts
        _print_line(
            f"{done} of {counted(total, 'job')} done; {made} for {counted(round((now - since) / 60), 'minute')}"
        )

    def _seconds_of(self, outputs: Iterable[str]) -> float:
        return self._seconds.get(_made_by(outputs), JOB_SECONDS)

    def _print(self, done: int, total: int) -> None:
        now = self._clock()
        self._counts = (done, total)
        if self._last is not None and now - self._last < INTERVAL and done < total:
            return
        self._last = now
        left = self._left(now - self._began)
        rest = f", {left} left" if left and done < total else ""
        _print_line(f"{done} of {counted(total, 'job')} done{rest}")

    def _left(self, elapsed: float) -> str:
        """The remaining time in words; empty if it is not known."""
        if not self._total:
            return ""
        if self._done >= CERTAIN_SHARE * self._total and elapsed > 0:
            speed = self._done / elapsed
        elif self._cores is not None:
            speed = self._cores
        else:
            return ""
        minutes = max(0.0, self._total - self._done) / speed / 60
        return f"about {minutes / 60:.1f} hours" if minutes > 100 else f"about {counted(round(minutes), 'minute')}"


def _made_by(outputs: Iterable[str]) -> str:
    """The run or the product that a job makes, by the job's outputs."""
    for output in outputs:
        if output.startswith(f"{RUNS}/"):
            return "/".join(output.split("/")[1:3])
    return next(iter(outputs), "a job")


def _print_line(text: str) -> None:
    with suppress(OSError):
        print(f"{time.strftime('%H:%M')}  {text}", file=sys.stderr, flush=True)


def _watch(progress: BriefProgress) -> None:
    while True:
        time.sleep(INTERVAL)
        progress.name_longest_job()


def make_brief(handlers: Iterable[logging.Handler], forecasts: Mapping[str, Forecast], cores: int | None) -> None:
    """Add the filter to the handlers that write to the terminal, if the user wants brief messages.

    Args:
        handlers: Snakemake's handlers.
        forecasts: the forecast of the targets of each kind of world.
        cores: number of cores that Snakemake uses; None if its jobs run elsewhere.
    """
    if os.environ.get(VARIABLE) != BRIEF:
        return
    items = [item for found in forecasts.values() for item in found.items.values()]
    works = {
        item.run.name: (core_seconds(item.work, sum(item.jobs.values())), sum(item.jobs.values())) for item in items
    }
    seconds = {name: work / max(1, jobs) for name, (work, jobs) in works.items()}
    is_known = set(forecasts) <= {"miniature"}
    total = sum(work for work, _ in works.values())
    progress = BriefProgress(seconds, total, cores if is_known else None)
    for handler in handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.addFilter(progress)
    threading.Thread(target=_watch, args=(progress,), daemon=True).start()
