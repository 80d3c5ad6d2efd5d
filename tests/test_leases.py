"""A run is computed by one job at a time, and a job that died keeps nobody waiting for long."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from conftest import REPOSITORY

from corelib.leases import Lease, Owner, read_owner

HOLDER = """
import sys, time
from pathlib import Path
from corelib.leases import Lease
with Lease(Path(sys.argv[1]), renewal=0.1, expiry=1.0).held():
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(path: Path, seconds: float) -> subprocess.Popen[str]:
    """A process that holds a lease for some time."""
    command = [sys.executable, "-c", HOLDER, str(path), str(seconds)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def lease(path: Path) -> Lease:
    return Lease(path, renewal=0.1, expiry=1.0)


def left_by(path: Path, **changed: str | int | None) -> Owner:
    """A lease whose owner will not give it back."""
    owner = replace(Owner.of_this_process(), nonce="somebody else", **changed)
    path.write_text(json.dumps(asdict(owner)))
    return owner


def test_it_is_there_while_it_is_held_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "runs/run/manifest.lease"
    mine = lease(path)
    with mine.held():
        assert read_owner(path) == mine.owner
        assert mine.owner.pid == os.getpid()
    assert list(path.parent.iterdir()) == []


def test_the_second_waits_until_the_first_has_finished(tmp_path: Path) -> None:
    first = holder(tmp_path / "lease", 1.5)  # longer than the expiry: it is renewed
    began = time.monotonic()
    with lease(tmp_path / "lease").held():
        assert first.wait(5) == 0
        assert time.monotonic() - began > 1.2


def test_many_at_once_hold_it_one_after_the_other(tmp_path: Path) -> None:
    inside, seen = [], []

    def take() -> None:
        with lease(tmp_path / "lease").held():
            inside.append(1)
            seen.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 8


def test_that_of_a_process_killed_on_this_machine_is_taken_over_at_once(tmp_path: Path) -> None:
    dead = holder(tmp_path / "lease", 60)
    dead.kill()
    dead.wait()
    began = time.monotonic()
    with Lease(tmp_path / "lease", renewal=1.0, expiry=60.0).held():
        assert time.monotonic() - began < 5


def test_that_of_another_machine_is_taken_over_when_it_has_not_been_renewed(tmp_path: Path) -> None:
    left_by(tmp_path / "lease", host="elsewhere")
    began = time.monotonic()
    with lease(tmp_path / "lease").held():
        assert 0.9 < time.monotonic() - began < 5


def test_an_old_one_of_another_machine_keeps_nobody_waiting(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    left_by(path, host="elsewhere")
    os.utime(path, (time.time() - 3600, time.time() - 3600))
    began = time.monotonic()
    with Lease(path, renewal=1.0, expiry=60.0).held():
        assert time.monotonic() - began < 5


def test_a_requeued_job_takes_over_from_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    left_by(tmp_path / "lease", host="the node that failed", job="12")
    began = time.monotonic()
    with Lease(tmp_path / "lease", renewal=1.0, expiry=60.0).held():
        assert time.monotonic() - began < 5


def test_half_a_lease_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "lease").write_text('{"host": "else')
    with lease(tmp_path / "lease").held():
        assert read_owner(tmp_path / "lease") is not None


def test_another_process_of_the_same_number_is_not_the_owner(tmp_path: Path) -> None:
    owner = left_by(tmp_path / "lease", started="long ago")
    assert owner.pid == os.getpid() and owner.is_gone()
    assert not Owner.of_this_process().is_gone()
    assert not replace(owner, namespace="another boot").is_gone()


def test_who_has_lost_it_is_asked_to_end(tmp_path: Path) -> None:
    asked = threading.Event()
    previous = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        with lease(tmp_path / "lease").held():
            left_by(tmp_path / "lease", host="elsewhere")
            assert asked.wait(3)
        assert (tmp_path / "lease").exists()  # it is somebody else's now
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_a_claim_is_answered_at_once(tmp_path: Path) -> None:
    first, second = lease(tmp_path / "lease"), lease(tmp_path / "lease")
    assert first.claim() is None
    assert second.claim() == first.owner
    first.give_back()
    assert second.claim() is None
    second.give_back()
    assert not (tmp_path / "lease").exists()


def test_a_claim_succeeds_over_one_who_died(tmp_path: Path) -> None:
    dead = holder(tmp_path / "lease", 60)
    dead.kill()
    dead.wait()
    mine = lease(tmp_path / "lease")
    assert mine.claim() is None
    mine.give_back()
