"""Snakemake's message about a failed job shows the end of its log."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from snakemake.logging import DefaultFormatter, LoggerManager
from snakemake.settings.types import OutputSettings
from snakemake_interface_logger_plugins.common import LogEvent

from corelib.workflow.failed_logs import MAX_LINES, LogEndFormatter, install_log_ends, log_ends

JOB = {
    "event": LogEvent.JOB_ERROR,
    "rule_name": "unlearn",
    "rule_msg": None,
    "jobid": 7,
    "input": [],
    "output": [],
    "conda_env": None,
    "container_img": None,
    "aux": {},
    "indent": False,
    "shellcmd": None,
}
"""The fields of Snakemake's `Job.log_error`, except the logs of the job."""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "run.log"
    path.write_text("".join(f"line {number}\n" for number in range(100)) + "Error: no such image\n")
    return path


@pytest.fixture
def snakemake_logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("snakemake of a test")
    logger.propagate = False
    yield logger
    logger.handlers.clear()


def written_text(logger: logging.Logger, extra: dict[str, Any], wants_logs: bool = True) -> str:
    """The text that Snakemake's handlers write for an error after the start of the workflow."""
    manager = LoggerManager(logger, OutputSettings(show_failed_logs=wants_logs, nocolor=True))
    install_log_ends([*logger.handlers, *manager.get_log_handlers()])
    (handler,) = logger.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream := io.StringIO())
    logger.error("Error", extra=extra)
    manager.stop()
    return stream.getvalue()


def test_snakemake_has_the_formatter_attribute_that_omits_logs() -> None:
    has_attribute = getattr(DefaultFormatter(show_failed_logs=True), "show_failed_logs", None) is True
    assert has_attribute, (
        "snakemake.logging.DefaultFormatter has no attribute show_failed_logs any more; "
        "corelib/workflow/failed_logs.py has to leave out the logs of failed jobs in another way."
    )


def test_snakemakes_message_ends_with_the_end_of_the_log(log: Path, snakemake_logger: logging.Logger) -> None:
    text = written_text(snakemake_logger, {**JOB, "log": [str(log)]})
    assert text.count(f"The last {MAX_LINES} of 101 lines of {log}:\n") == 1
    assert text.endswith("    Error: no such image\n")
    assert "Error in rule unlearn:" in text and "line 70" not in text and "Logfile" not in text


def test_every_log_of_a_failed_group_is_shown(log: Path, tmp_path: Path, snakemake_logger: logging.Logger) -> None:
    (tmp_path / "slurm.log").write_text("out of memory\n")
    job = {"rule_name": "unlearn", "jobid": 7, "output": [], "log": [str(log)]}
    group = {"event": LogEvent.GROUP_ERROR, "groupid": "g", "aux_logs": [str(tmp_path / "slurm.log")]}
    text = written_text(snakemake_logger, {**group, "job_error_info": [job]})
    assert "The last" in text and "line 70" not in text and "    Error: no such image\n" in text


def test_other_messages_are_unchanged(snakemake_logger: logging.Logger) -> None:
    assert written_text(snakemake_logger, {"event": None}) == "Error\n"


def test_a_user_who_wants_no_logs_sees_none(log: Path, snakemake_logger: logging.Logger) -> None:
    assert "no such image" not in written_text(snakemake_logger, {**JOB, "log": [str(log)]}, wants_logs=False)


def test_a_second_installation_of_the_formatter_changes_nothing(log: Path) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(DefaultFormatter(show_failed_logs=True))
    install_log_ends([handler])
    install_log_ends([handler])
    assert isinstance(handler.formatter, LogEndFormatter)
    record = logging.makeLogRecord({**JOB, "log": [str(log)]})
    assert handler.format(record).count("Error: no such image") == 1


def test_the_end_of_a_long_log_is_shown(tmp_path: Path) -> None:
    job_log, slurm_log = tmp_path / "logs/unlearning/run.log", tmp_path / ".snakemake/slurm_logs/rule_unlearn/7.log"
    for path in (job_log, slurm_log):
        path.parent.mkdir(parents=True)
    job_log.write_text("".join(f"line {number}\n" for number in range(100)) + "Error: no such image\n")
    slurm_log.write_text("what Snakemake says on the node\n")
    shown = list(log_ends([str(job_log), str(slurm_log)]))
    assert shown[0] == f"The last {MAX_LINES} of 101 lines of {job_log}:"
    assert shown[-1].strip() == "Error: no such image" and len(shown) == MAX_LINES + 1


def test_the_schedulers_log_of_a_job_that_never_began_is_shown(tmp_path: Path) -> None:
    slurm_log = tmp_path / ".snakemake/slurm_logs/rule_unlearn/7.log"
    slurm_log.parent.mkdir(parents=True)
    slurm_log.write_text("slurmstepd: error: no such folder\n")
    shown = list(log_ends([str(tmp_path / "logs/unlearning/run.log"), str(slurm_log)]))
    assert shown == [f"Logfile {slurm_log}:", "    slurmstepd: error: no such folder"]
