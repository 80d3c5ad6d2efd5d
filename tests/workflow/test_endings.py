"""Interrupted invocations end with how to go on, forced ones with what they did not do; brief ones are a few lines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.checkout import Checkout

from corelib.workflow.endings import explain_forcing

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


@pytest.mark.parametrize("option", ["forcerun", "forcetargets", "forceall"])
def test_every_way_to_force_jobs_is_explained(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"forcerun": set(), "forcetargets": False, "forceall": False}
    explain_forcing(SimpleNamespace(**settings))
    assert capsys.readouterr().err == ""
    explain_forcing(SimpleNamespace(**settings | {option: {"unlearn"}}))
    assert "To compute a run anew, remove it first: python -m corelib clean" in capsys.readouterr().err
