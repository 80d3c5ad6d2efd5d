"""Brief messages: a line each minute with the remaining time; errors of jobs are shown as always."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from corelib.workflow.brief_progress import HIDDEN, BriefProgress


def record(event: LogEvent | None, message: str = "", **fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("snakemake", logging.INFO, "", 0, message, None, None)
    made.__dict__.update(event=event, **fields)
    return made


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def finish_jobs(progress: BriefProgress, clock: Clock, count: int, seconds: float, total: int) -> None:
    for number in range(count):
        progress.filter(record(LogEvent.JOB_INFO, jobid=number, output=["runs/unlearning/core-1/manifest.json"]))
        clock.now += seconds
        progress.filter(record(LogEvent.JOB_FINISHED, job_id=number))
        progress.filter(record(LogEvent.PROGRESS, done=number + 1, total=total))


def test_many_jobs_are_a_few_lines_with_the_remaining_time(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    progress = BriefProgress({"unlearning/core-1": 10.0}, 1000.0, 2, clock)
    finish_jobs(progress, clock, count=100, seconds=6, total=100)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[0].endswith("1 of 100 jobs done, about 8 minutes left")  # 990 s on two cores, as forecast
    assert lines[1].endswith("11 of 100 jobs done, about 9 minutes left")  # 890 s at 10 s in 6 s, as measured
    assert lines[-1].endswith("100 of 100 jobs done")


def test_without_a_known_speed_the_time_is_measured_first(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    progress = BriefProgress({"unlearning/core-1": 10.0}, 1000.0, None, clock)
    finish_jobs(progress, clock, count=11, seconds=6, total=100)
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("1 of 100 jobs done") and second.endswith("about 9 minutes left")


def test_a_long_job_is_named_while_none_ends(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    progress = BriefProgress({}, 1000.0, 2, clock)
    progress.filter(record(LogEvent.RUN_INFO, stats={"unlearn": 2, "total": 2}))
    for number in (0, 1):
        progress.filter(
            record(LogEvent.JOB_INFO, jobid=number, output=[f"runs/unlearning/core-{number}/manifest.json"])
        )
        progress.name_longest_job()
        clock.now += 100
    assert not capsys.readouterr().err
    progress.name_longest_job()
    assert capsys.readouterr().err.endswith("  0 of 2 jobs done; unlearning/core-0 for 3 minutes\n")
    clock.now += 100
    progress.name_longest_job()
    assert not capsys.readouterr().err, "not more often than every three minutes"
    progress.filter(record(LogEvent.JOB_FINISHED, job_id=0))
    progress.filter(record(LogEvent.JOB_ERROR, jobid=1))
    clock.now += 1000
    progress.name_longest_job()
    assert not capsys.readouterr().err


def test_only_messages_about_jobs_that_go_well_are_hidden() -> None:
    progress = BriefProgress({}, 1.0, 1)
    fields = {"jobid": 1, "job_id": 1, "done": 1, "total": 2}
    assert not any(progress.filter(record(event, **fields)) for event in HIDDEN)
    assert progress.filter(record(LogEvent.JOB_ERROR, **fields)) and progress.filter(record(LogEvent.ERROR))
    assert progress.filter(record(None, "Error: table1.csv")) and not progress.filter(
        record(None, "Select jobs to execute...")
    )
