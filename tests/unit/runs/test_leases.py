"""Only one job at a time computes a run, and a dead job does not delay others for long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.checkout import REPOSITORY

from corelib.runs.lease import Lease, LeaseTaken
from corelib.runs.lease_owner import Owner, owner_as_json, read_owner

HOLDER = """
import sys, time
from pathlib import Path
from corelib.runs.lease import Lease
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


def max_simultaneous_holders(path: Path, contenders: int) -> int:
    """Let several threads hold a lease, and return how many of them held it at the same time."""
    inside: list[int] = []
    seen: list[int] = []

    def take() -> None:
        with lease(path).held():
            inside.append(1)
            seen.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    threads = [threading.Thread(target=take) for _ in range(contenders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == contenders
    return max(seen)


def write_abandoned_lease(path: Path, **changed: str | int | None) -> Owner:
    """Write a lease that its owner never gives back, and return the owner."""
    owner = Owner.of_this_process().model_copy(update=dict(nonce="somebody else", **changed))
    path.write_text(owner_as_json(owner))
    return owner


def test_a_lease_exists_only_while_it_is_held(tmp_path: Path) -> None:
    path = tmp_path / "runs/run/manifest.lease"
    mine = lease(path)
    with mine.held():
        assert read_owner(path) == mine.owner
        assert mine.owner.pid == os.getpid()
    assert list(path.parent.iterdir()) == []


def test_a_second_process_waits_until_the_first_has_finished(tmp_path: Path) -> None:
    first = holder(tmp_path / "lease", 1.5)  # longer than the expiry: it is renewed
    began = time.monotonic()
    with lease(tmp_path / "lease").held():
        assert first.wait(5) == 0
        assert time.monotonic() - began > 1.2


def test_many_contenders_hold_a_lease_one_at_a_time(tmp_path: Path) -> None:
    assert max_simultaneous_holders(tmp_path / "lease", contenders=8) == 1


def test_the_lease_of_a_killed_process_on_this_machine_is_taken_over_at_once(tmp_path: Path) -> None:
    dead = holder(tmp_path / "lease", 60)
    dead.kill()
    dead.wait()
    began = time.monotonic()
    with Lease(tmp_path / "lease", renewal=1.0, expiry=60.0).held():
        assert time.monotonic() - began < 5


def test_a_lease_of_another_machine_is_taken_over_if_it_is_not_renewed(tmp_path: Path) -> None:
    write_abandoned_lease(tmp_path / "lease", host="elsewhere")
    began = time.monotonic()
    with lease(tmp_path / "lease").held():
        assert 0.9 < time.monotonic() - began < 5


def test_the_clock_of_another_machine_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    write_abandoned_lease(path, host="elsewhere")
    long_ago = time.time() - 3600
    os.utime(path, (long_ago, long_ago))
    began = time.monotonic()
    with lease(path).held():
        assert time.monotonic() - began > 0.9


def test_a_requeued_job_takes_over_its_own_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setattr("corelib.runs.lease_owner.JOB", "12")
    write_abandoned_lease(tmp_path / "lease", host="the node that failed", job="12")
    began = time.monotonic()
    with Lease(tmp_path / "lease", renewal=1.0, expiry=60.0).held():
        assert time.monotonic() - began < 5


def test_a_living_process_of_the_same_allocation_keeps_its_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snakemake may itself run in a job of several GPUs: then all its jobs have that job's number."""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setattr("corelib.runs.lease_owner.JOB", "12")
    first = holder(tmp_path / "lease", 1.5)
    with lease(tmp_path / "lease").held():
        assert first.wait(5) == 0


def test_an_incomplete_lease_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "lease").write_text('{"host": "else')
    with lease(tmp_path / "lease").held():
        assert read_owner(tmp_path / "lease") is not None


def test_another_process_with_the_same_pid_is_not_the_owner(tmp_path: Path) -> None:
    owner = write_abandoned_lease(tmp_path / "lease", started="long ago")
    assert owner.pid == os.getpid() and owner.is_gone()
    assert not Owner.of_this_process().is_gone()
    assert not owner.model_copy(update={"namespace": "another boot"}).is_gone()


def test_a_process_that_lost_its_lease_gets_sigterm(tmp_path: Path) -> None:
    terminated = threading.Event()
    previous = signal.signal(signal.SIGTERM, lambda *_: terminated.set())
    try:
        with lease(tmp_path / "lease").held():
            write_abandoned_lease(tmp_path / "lease", host="elsewhere")
            assert terminated.wait(3)
        assert (tmp_path / "lease").exists()  # it belongs to another owner now
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_the_error_without_patience_names_the_owner(tmp_path: Path) -> None:
    first, second = lease(tmp_path / "lease"), lease(tmp_path / "lease")
    first.take(patience=0)
    with pytest.raises(LeaseTaken, match=f"process {os.getpid()} on "):
        second.take(patience=0)
    first.give_back()
    second.take(patience=0)
    second.give_back()
    assert list(tmp_path.iterdir()) == []


def test_without_patience_a_lease_of_another_machine_is_still_watched_for_a_renewal(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    write_abandoned_lease(path, host="elsewhere")
    living = threading.Timer(0.5, os.utime, [path])
    living.start()
    with pytest.raises(LeaseTaken):
        lease(path).take(patience=0)
    living.join()
    mine = lease(path)
    mine.take(patience=0)  # no further renewal
    mine.give_back()


def test_an_empty_lease_is_not_taken_over_at_once(tmp_path: Path) -> None:
    """Another process may have created it, but not yet written its name."""
    (tmp_path / "lease").touch()
    mine = Lease(tmp_path / "lease", renewal=0.1, expiry=2.0)
    began = time.monotonic()
    mine.take(patience=0)
    assert time.monotonic() - began > 1.9
    assert mine.holder() == mine.owner
    mine.give_back()


def test_many_contenders_take_over_from_a_dead_owner_one_at_a_time(tmp_path: Path) -> None:
    write_abandoned_lease(tmp_path / "lease", started="long ago")
    assert max_simultaneous_holders(tmp_path / "lease", contenders=12) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_mark_of_a_dead_successor_expires(tmp_path: Path) -> None:
    owner = write_abandoned_lease(tmp_path / "lease", started="long ago")
    (tmp_path / f".lease.after-{owner.nonce}").touch()
    with lease(tmp_path / "lease").held():
        pass
    assert list(tmp_path.iterdir()) == []
