"""Slurm's queue with jobs of an earlier Snakemake, tested with scripts in place of Slurm's commands."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from corelib.cluster import slurm_queue as slurm
from corelib.cluster.slurm_notes import SlurmNotes


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first on PATH; calls of its programs have a short time limit."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "PATIENCE", 0.5)
    return tmp_path


def program(place: Path, name: str, text: str) -> None:
    (place / name).write_text(f"#!/bin/sh\n{text}\n")
    (place / name).chmod(0o755)


def test_jobs_that_wait_in_this_folder_are_cancelled(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = (
        f"7|PENDING|rule_unlearn|{place}|(None)",
        "8|PENDING|rule_unlearn|/elsewhere|(None)",
        f"9|PENDING|x|{place}|",
    )
    program(place, "squeue", "\n".join(f"echo '{row}'" for row in rows))
    program(place, "scancel", f'echo "$@" > {place}/cancelled')
    slurm.cancel_waiting_jobs(place)
    assert (place / "cancelled").read_text().split() == ["--state=PENDING", "7"]
    assert capsys.readouterr().err == "Cancelled 1 job that an earlier Snakemake left in the queue.\n"


def test_queued_jobs_are_listed_with_slurms_reason_or_their_node(place: Path) -> None:
    rows = (
        f"7|PENDING|rule_unlearn_wildcards_core-forget06-0a [1b2c3d4e]|{place}|(QOSMaxJobsPerUserLimit)",
        f"8|RUNNING|rule_measure_fid_wildcards_esd-forget06-0b [1b2c3d4f]|{place}|gpu1",
    )
    program(place, "squeue", "\n".join(f"echo '{row}'" for row in rows))
    assert list(map(str, slurm.queued_jobs(place))) == [
        "unlearn core-forget06-0a\n    job 7 waits (QOSMaxJobsPerUserLimit)",
        "measure_fid esd-forget06-0b\n    job 8 runs on gpu1",
    ]


def test_a_machine_with_slurms_commands_that_belongs_to_no_cluster_has_no_jobs(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(place, "squeue", "echo 'squeue: fatal: Could not establish a configuration source' >&2; exit 1")
    assert slurm.queued_jobs(place) == []
    assert capsys.readouterr().err == ""


def test_a_long_outage_ends_snakemake_with_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outage = {"since": 0, "last": 130, "message": "no controller"}
    (tmp_path / "outage-slurmctld.json").write_text(json.dumps(outage))
    (tmp_path / "settings.json").write_text(json.dumps({"patience": 120}))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    errors: list[str] = []
    slurm._watch(SlurmNotes(tmp_path), errors.append)
    (sentence,) = errors
    assert sentence.startswith("Slurm has not answered for 2 minutes (no controller), longer than `outage` in")
    assert SlurmNotes(tmp_path).is_past_patience()


@pytest.mark.parametrize("slow", ["squeue", "scancel"])
def test_a_controller_that_does_not_answer_stops_nothing(
    slow: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(place, "squeue", f"echo '7|PENDING|rule_unlearn|{place}|(Priority)'")
    program(place, "scancel", "exit 0")
    program(place, slow, "exec sleep 60")
    slurm.cancel_waiting_jobs(place)
    errors = capsys.readouterr().err
    assert errors.startswith(f"{slow} has not answered within 0.5 seconds") and len(errors.splitlines()) == 1
