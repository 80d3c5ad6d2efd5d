"""What an earlier Snakemake has left in Slurm's queue, as seen through programs that stand in for Slurm's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from corelib import slurm


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose programs are found first; the patience is short."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "PATIENCE", 0.5)
    return tmp_path


def program(place: Path, name: str, text: str) -> None:
    (place / name).write_text(f"#!/bin/sh\n{text}\n")
    (place / name).chmod(0o755)


def test_jobs_that_wait_in_this_folder_are_cancelled(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program(place, "squeue", f"echo '7|rule_unlearn|{place}'; echo '8|rule_unlearn|/elsewhere'; echo '9|x|{place}'")
    program(place, "scancel", f'echo "$@" > {place}/cancelled')
    slurm.cancel_waiting_jobs(place)
    assert (place / "cancelled").read_text().split() == ["--state=PENDING", "7"]
    assert capsys.readouterr().err == "Cancelled 1 jobs that an earlier Snakemake has left in the queue.\n"


@pytest.mark.parametrize("slow", ["squeue", "scancel"])
def test_a_controller_that_does_not_answer_stops_nothing(
    slow: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(place, "squeue", f"echo '7|rule_unlearn|{place}'")
    program(place, "scancel", "exit 0")
    program(place, slow, "exec sleep 60")
    slurm.cancel_waiting_jobs(place)
    said = capsys.readouterr().err
    assert said.startswith(f"{slow} has not answered in 0.5 seconds") and len(said.splitlines()) == 1
