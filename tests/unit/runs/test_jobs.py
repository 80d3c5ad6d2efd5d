"""The job runner: no run is computed twice, no partial file is left, and the log records what happened."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.checkout import REPOSITORY
from support.hand_made import write_manifest
from support.toy_job import MADE, UNFINISHED, Toy, toy_at

from corelib.files.sealed_json import has_its_seal, sealed
from corelib.runs.job import INTERRUPTED_STATUS
from corelib.runs.job_log import MAX_EARLIER_LINES, earlier_log
from corelib.runs.lease_owner import Owner, owner_as_json
from corelib.runs.manifest import read_manifest
from corelib.runs.specification import digest_of


@pytest.fixture
def toy(tmp_path: Path, request: pytest.FixtureRequest) -> Toy:
    return toy_at(tmp_path, getattr(request, "param", "works"))


def test_a_job_writes_its_file_a_manifest_and_a_provenance_record(toy: Toy) -> None:
    assert toy.run() == 0
    assert toy.files() == MADE
    record = json.loads((toy.folder / "manifest.provenance.json").read_text())
    assert record["manifest"] == json.loads((toy.folder / "manifest.json").read_text())
    assert record["began"] < record["finished"] and record["wall_seconds"] >= 0
    assert {"host", "node", "device", "visible_devices", "version", "commit", "python", "threads"} <= record.keys()
    assert "on " in toy.log and "1 CPU thread(s), python 3" in toy.log


@pytest.mark.parametrize("toy", ["sets the clock back"], indirect=True)
def test_the_wall_time_is_not_negative_if_the_clock_is_set_back(toy: Toy) -> None:
    assert toy.run() == 0
    record = json.loads((toy.folder / "manifest.provenance.json").read_text())
    assert record["finished"] < record["began"] and 0 <= record["wall_seconds"] < 60


def test_partial_files_of_a_killed_attempt_are_removed_by_the_next(toy: Toy) -> None:
    (toy.folder / ".made.txt.0123.txt").write_text("half")
    assert toy.run() == 0
    assert toy.files() == MADE
    assert ".made.txt.0123.txt: partial file of an earlier attempt; removed" in toy.log


def test_a_complete_run_is_not_computed_again(toy: Toy) -> None:
    assert toy.run() == 0
    (toy.place / "logs/toy.log").unlink()
    manifest = (toy.folder / "manifest.json").read_text()
    (toy.folder / "manifest.json").unlink()  # as Snakemake does before each attempt
    assert toy.run() == 0
    assert toy.attempts == 1
    assert (toy.folder / "manifest.json").read_text() == manifest
    assert "already complete (by a process on" in toy.log
    assert "1 CPU thread(s), python 3" in toy.log and "done in" in toy.log  # the log of the job that completed the run


def test_a_damaged_file_is_rebuilt(toy: Toy) -> None:
    assert toy.run() == 0
    (toy.folder / "made.txt").write_text("hole")
    (toy.folder / "manifest.json").unlink()
    assert toy.run() == 0
    assert toy.attempts == 2
    assert (toy.folder / "made.txt").read_text() == "whole"


def test_a_partial_record_or_one_of_another_run_is_ignored(toy: Toy) -> None:
    assert toy.run() == 0
    record = toy.folder / "manifest.provenance.json"
    for text in (record.read_text().replace('"digest": "', '"digest": "0'), record.read_text()[:40], "[]"):
        record.write_text(text)
        (toy.folder / "manifest.json").unlink()
        before = toy.attempts
        assert toy.run() == 0
        assert toy.attempts == before + 1


def test_a_damaged_file_of_the_provenance_record_is_rebuilt(toy: Toy) -> None:
    assert toy.run() == 0
    path = toy.folder / "manifest.provenance.json"
    record = json.loads(path.read_text())
    for content, attempts in (("when and where", 1), ("damaged", 2)):
        (toy.folder / "record.txt").write_text(content)
        sha256 = hashlib.sha256(b"when and where").hexdigest()
        path.write_text(json.dumps(sealed({**record, "records": {"record.txt": sha256}})))
        (toy.folder / "manifest.json").unlink()
        assert toy.run() == 0
        assert toy.attempts == attempts


def test_an_edited_provenance_record_is_ignored(toy: Toy) -> None:
    """Otherwise the run would remain complete for ever, with a damaged provenance record."""
    assert toy.run() == 0
    path = toy.folder / "manifest.provenance.json"
    path.write_text(path.read_text().replace('"host"', '"hose"'))
    (toy.folder / "manifest.json").unlink()
    assert toy.run() == 0
    assert toy.attempts == 2 and has_its_seal(json.loads(path.read_text()))


def test_a_specification_with_an_edit_that_its_digest_does_not_cover_is_refused(toy: Toy) -> None:
    path = toy.folder / "specification.json"
    path.write_text(path.read_text().replace('"checkpoint_seconds": 1.0', '"checkpoint_seconds": 9.0'))
    assert toy.run() == 1
    assert "specification.json: its seal does not match its content; it was damaged or edited: delete it" in toy.log


def test_a_run_made_with_another_build_of_a_model_is_rebuilt(toy: Toy) -> None:
    """A model that is retrained, for example on another device, has the same address but other bits."""
    model = toy.place / "runs/unlearning/core-000000000000"
    model.mkdir(parents=True)

    def train(bits: str) -> None:
        (model / "delta.safetensors").write_text(bits)
        write_manifest(model / "manifest.json", model, "unlearning", "0" * 64, ["delta.safetensors"], {})

    specification = json.loads((toy.folder / "specification.json").read_text())
    specification["inputs"] = {"delta": "0" * 64}
    specification["builds_on"] = {"delta": "unlearning/core-000000000000"}
    specification["digest"] = digest_of(specification)
    (toy.folder / "specification.json").write_text(json.dumps(sealed(specification)))
    train("one")
    assert toy.run() == 0
    (toy.folder / "manifest.json").unlink()  # as Snakemake does
    assert toy.run() == 0
    assert toy.attempts == 1
    (toy.folder / "manifest.json").unlink()
    train("another")
    assert toy.run() == 0
    assert toy.attempts == 2
    made = json.loads((toy.folder / "manifest.json").read_text())
    assert made["trained"] == {"unlearning/core-000000000000": read_manifest(model / "manifest.json").seal}


@pytest.mark.parametrize("toy", ["waits"], indirect=True)
def test_earlier_attempts_are_recorded(toy: Toy) -> None:
    """An interrupted attempt may have used another device, and has a cost."""
    job = toy.start_writing()
    job.kill()
    job.wait(60)
    (toy.folder / "checkpoint.pt").touch()
    (toy.place / "go").touch()
    assert toy.run() == 0
    record = json.loads((toy.folder / "manifest.provenance.json").read_text())
    (before,) = record["earlier_attempts"]
    assert before["began"] <= before["saved"] <= record["began"]
    assert before["device"] == record["device"] == "cpu" and before["processor"] == record["processor"] != ""
    assert not list(toy.folder.glob("*.attempts.json"))


@pytest.mark.parametrize("toy", ["waits"], indirect=True)
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL], ids=lambda sent: sent.name)
def test_a_resumed_job_keeps_the_logs_of_its_earlier_attempts(sent: signal.Signals, toy: Toy) -> None:
    for attempt in (1, 2):
        job = toy.start_writing()
        toy.wait_until(lambda attempt=attempt: toy.attempts == attempt)
        job.send_signal(sent)
        job.wait(60)
        (toy.place / "logs/toy.log").unlink()  # as Snakemake does before each attempt
        for partial in toy.folder.glob(".made.txt*"):
            partial.unlink()
    (toy.place / "go").touch()
    assert toy.run() == 0
    assert toy.log.count("---- next attempt ----") == 2
    assert toy.log.count("1 CPU thread(s), python 3") == 3 and toy.log.count("done in") == 1
    assert toy.log.count("received SIGINT") == (2 if sent == signal.SIGINT else 0)
    assert [path.name for path in (toy.place / "logs").iterdir()] == ["toy.log"]


def test_of_many_earlier_attempts_the_last_lines_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    earlier_log(log).write_text("".join(f"line {number}\n" for number in range(MAX_EARLIER_LINES + 5)))
    code = f"from corelib.runs.job_log import JobLog; from pathlib import Path; JobLog(Path({str(log)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
    lines = log.read_text().splitlines()
    assert lines[:2] == ["(5 earlier lines omitted)", "line 5"]
    assert lines[-2:] == [f"line {MAX_EARLIER_LINES + 4}", "---- next attempt ----"]


@pytest.mark.parametrize("toy", ["waits"], indirect=True)
def test_the_second_of_two_jobs_for_one_run_waits_and_computes_nothing(toy: Toy) -> None:
    first, second = toy.start_writing(), toy.start()
    toy.wait_until(lambda: "waiting for its result or its end" in toy.log)
    (toy.place / "go").touch()
    assert (first.wait(60), second.wait(60)) == (0, 0)
    assert toy.attempts == 1
    assert "already complete (by" in toy.log
    assert toy.files() == MADE


@pytest.mark.parametrize("toy", ["waits"], indirect=True)
def test_a_log_that_is_deleted_during_a_job_is_written_again(toy: Toy) -> None:
    """Snakemake deletes it when it starts another job for the run."""
    job = toy.start_writing()
    (toy.place / "logs/toy.log").unlink()
    (toy.place / "go").touch()
    assert job.wait(60) == 0
    assert "done in" in toy.log


@pytest.mark.parametrize("toy", ["waits"], indirect=True)
def test_a_job_that_lost_its_lease_uses_the_result_of_the_new_owner(toy: Toy) -> None:
    """For example, its node was cut off. If the job failed, Snakemake would delete the manifest of the other job."""
    job = toy.start_writing()
    lease = toy.folder / "manifest.lease"
    new_owner = Owner.of_this_process().model_copy(update={"nonce": "the heir"})
    lease.write_text(owner_as_json(new_owner))  # its owner is this process, which is alive
    toy.wait_until(lambda: "lost to process" in toy.log and "waiting for its result" in toy.log)
    (toy.place / "go").touch()
    lease.unlink()
    assert job.wait(60) == 0
    assert toy.files() == MADE


@pytest.mark.parametrize("toy", ["waits"], indirect=True)
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT], ids=lambda sent: sent.name)
def test_a_terminated_job_leaves_no_partial_files(sent: signal.Signals, toy: Toy) -> None:
    job = toy.start_writing()
    job.send_signal(sent)
    assert job.wait(30) == INTERRUPTED_STATUS
    assert toy.files() == UNFINISHED
    assert f"received {sent.name}" in toy.log
    assert "Traceback" not in toy.log


@pytest.mark.parametrize("toy", ["waits"], indirect=True)
def test_a_job_whose_predecessor_was_killed_does_not_wait_for_it(toy: Toy) -> None:
    killed = toy.start_writing()
    killed.kill()
    killed.wait()
    assert "manifest.lease" in toy.files()
    again = toy.start()
    toy.wait_until(lambda: toy.attempts == 2)
    again.terminate()
    assert again.wait(30) == INTERRUPTED_STATUS


@pytest.mark.parametrize("toy", ["fails"], indirect=True)
def test_the_log_of_a_bug_ends_with_the_traceback(toy: Toy) -> None:
    assert toy.run() == 1
    assert toy.log.rstrip().endswith("ValueError: a bug")
    assert toy.files() == UNFINISHED
