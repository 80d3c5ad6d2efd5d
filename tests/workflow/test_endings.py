"""Interrupted invocations end with how to go on, forced ones with what they did not do; brief ones are a few lines."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake_interface_logger_plugins.common import LogEvent
from support.checkout import Checkout

from corelib.workflow.endings import InterruptedJobsHidden, command_of, explain_forcing

TABLE = "results/tiny/table1.csv"


@pytest.mark.slow
def test_ctrl_c_ends_with_how_to_go_on_and_a_forced_job_with_what_it_did_not_do(tmp_path: Path) -> None:
    clone = Checkout.at(tmp_path / "clone")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    output = (tmp_path / "output").open("w+")
    command = [sys.executable, "-m", "snakemake", TABLE, "--cores", "1"]
    process = subprocess.Popen(command, cwd=clone.folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
    until = time.monotonic() + 300
    while not list(clone.folder.glob("logs/autoencoder/*.log")):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 1
    lines = (tmp_path / "output").read_text().strip().splitlines()
    assert lines[-1].startswith(
        "Interrupted: complete results and saved states are kept; to continue, repeat the command: "
    )
    assert lines[-1].endswith(f"snakemake {TABLE} --cores 1")
    assert not any(text in line for line in lines for text in ("CalledProcessError", "WorkflowError", "Error in rule"))
    (images,) = clone.folder.glob("runs/images/*/manifest.json")
    target = str(images.relative_to(clone.folder))
    unforced = clone.snakemake(target, "--cores", "1").stdout
    assert "Forced jobs" not in unforced and "Interrupted" not in unforced
    done = clone.snakemake("--cores", "1", "-R", "render_images", "--", target)
    assert done.returncode == 0, done.stdout
    assert "Forced jobs (-R, -f or -F) of complete runs have only checked the files" in done.stdout
    assert "rule render_images:" in done.stdout
    forced = ("-m", "snakemake", "--cores", "1", "-R", "render_images", "--", target)
    brief = clone.python(*forced, timeout=300, CORELIB_PROGRESS="brief")
    assert "  1 of 1 job done" in brief.stdout, brief.stdout
    assert not any(text in brief.stdout for text in ("rule render_images:", "Finished jobid", "Execute 1 jobs"))


def record(message: str, event: LogEvent | None = None, log: Path | None = None) -> logging.LogRecord:
    made = logging.LogRecord("snakemake", logging.ERROR, "", 0, message, None, None)
    vars(made).update({"event": event} | ({"log": [str(log)]} if log else {}))
    return made


FAILED = "RuleException:\nCalledProcessError in file \"x.smk\", line 1:\nCommand 'set -euo pipefail; python' "


def test_after_ctrl_c_only_the_jobs_that_it_has_ended_are_not_reported(tmp_path: Path) -> None:
    interrupted, failed, empty = (tmp_path / name for name in ("interrupted.log", "failed.log", "empty.log"))
    interrupted.write_text("on vm\n2026-12-01 17:04:15 received SIGINT; complete files are kept\n")
    failed.write_text("on vm\nError: assets/x is missing.\n")
    empty.touch()
    hidden = [
        record(f"{FAILED}returned non-zero exit status 75.", LogEvent.ERROR),
        record(f"{FAILED}returned non-zero exit status 130.", LogEvent.ERROR),
        record(f"{FAILED}died with <Signals.SIGINT: 2>.", LogEvent.ERROR),
        record("", LogEvent.JOB_ERROR, interrupted),
        record("", LogEvent.JOB_ERROR, empty),
    ]
    consequences = [
        record("Exiting because a job execution failed. Look above for error messages"),
        record("WorkflowError:\nAt least one job did not complete successfully.", LogEvent.ERROR),
    ]
    messages = InterruptedJobsHidden()
    assert not any(map(messages.filter, [*hidden, *consequences]))
    shown = [
        record(f"{FAILED}returned non-zero exit status 1.", LogEvent.ERROR),
        record("WorkflowError:\nNo space left on device", LogEvent.ERROR),
        record("", LogEvent.JOB_ERROR, failed),
        record("Shutting down, this might take some time."),
    ]
    for one in shown[:3]:
        messages = InterruptedJobsHidden()
        assert messages.filter(one) and all(map(messages.filter, consequences))
        assert not any(map(messages.filter, hidden))
    assert messages.filter(shown[3])


def test_the_command_to_go_on_is_one_that_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / ".venv/bin/snakemake"
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin")
    assert command_of([".venv/bin/snakemake", "a b", "-c1"]) == ".venv/bin/snakemake 'a b' -c1"
    assert command_of([str(program), "-c1"]) == ".venv/bin/snakemake -c1"
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    assert command_of(["/lib/snakemake/__main__.py", "-c1"]) == ".venv/bin/python -m snakemake -c1"
    monkeypatch.setenv("PATH", str(program.parent))
    assert command_of([str(program), "-c1"]) == "snakemake -c1"
    monkeypatch.chdir(tmp_path / ".venv")
    monkeypatch.setenv("PATH", "/usr/bin")
    assert command_of([str(tmp_path / "elsewhere/snakemake")]) == str(tmp_path / "elsewhere/snakemake")


@pytest.mark.parametrize("option", ["forcerun", "forcetargets", "forceall"])
def test_every_way_to_force_jobs_is_explained(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"forcerun": set(), "forcetargets": False, "forceall": False}
    explain_forcing(SimpleNamespace(**settings))
    assert capsys.readouterr().err == ""
    explain_forcing(SimpleNamespace(**settings | {option: {"unlearn"}}))
    assert "To compute a run again, remove it first: python -m corelib clean" in capsys.readouterr().err
