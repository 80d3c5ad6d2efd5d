"""Active jobs are recognised even if the clocks of other machines are wrong."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from corelib.runs.active_jobs import find_active_jobs
from corelib.runs.lease_owner import Owner, owner_as_json

QUARTER_OF_AN_HOUR = 900


@pytest.fixture
def lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lease of job 7, on a node whose clock is 15 minutes behind."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "runs/unlearning/core-0123456789ab/manifest.lease"
    path.parent.mkdir(parents=True)
    owner = Owner.of_this_process().model_copy(
        update={"host": "gpu1", "node": "gpu1", "namespace": "other", "job": "7"}
    )
    path.write_text(owner_as_json(owner))
    renew(path)
    return path


def renew(lease: Path) -> None:
    then = time.time() - QUARTER_OF_AN_HOUR
    os.utime(lease, (then, then))


def test_a_job_that_renews_its_lease_is_alive_even_if_its_clock_is_wrong(lease: Path) -> None:
    threading.Timer(1.0, renew, [lease]).start()
    (job,) = find_active_jobs(patience=10)
    assert job.lives


@pytest.mark.usefixtures("lease")
def test_a_job_that_slurm_knows_is_alive() -> None:
    began = time.monotonic()
    (job,) = find_active_jobs({"7"}, patience=10)
    assert job.lives and time.monotonic() - began < 1


@pytest.mark.usefixtures("lease")
def test_a_job_that_slurm_does_not_know_and_that_renews_nothing_is_dead() -> None:
    (job,) = find_active_jobs({"8"}, patience=1.5)
    assert not job.lives and "presumed dead" in str(job)


def test_a_job_that_ends_while_it_is_watched_is_not_dead(lease: Path) -> None:
    threading.Timer(0.5, lease.unlink).start()
    (job,) = find_active_jobs(patience=10)
    assert job.lives
