"""What is asked of Slurm besides what Snakemake's executor asks, and what happens while Slurm does not answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corelib.requests import BOOKKEEPING

PATIENCE = 60
"""Seconds until an answer of the controller is given up."""

COMMENT = "rule_"
"""With which the executor's comments on its jobs begin."""

NOTES = BOOKKEEPING / "slurm"
"""Where `slurm/clients.py` notes which jobs were submitted and since when Slurm does not answer."""

WORTH_SAYING = 60.0
"""Seconds of an outage after which the terminal says so."""


# Outages


def be_patient(repository: Path, outage: float, give_up: Callable[[str], None]) -> None:
    """Let Snakemake's executor call the workflow's own `sbatch`, `squeue`, `sacct` and `sacctmgr`.

    Those wait for a Slurm that does not answer (`slurm/clients.py`). A thread says in the terminal what they wait for.

    Args:
        repository: the folder of the Snakefile.
        outage: seconds for which Slurm may give no answer.
        give_up: called with a sentence after that time; Snakemake then ends, and its jobs go on.
    """
    shutil.rmtree(NOTES, ignore_errors=True)
    NOTES.mkdir(parents=True)
    (NOTES / "settings.json").write_text(json.dumps({"patience": outage}), encoding="utf-8")
    os.environ["CORELIB_SLURM"] = str(NOTES.absolute())
    os.environ["CORELIB_PYTHON"] = sys.executable
    os.environ["PATH"] = os.pathsep.join([str(repository / "slurm/bin"), os.environ["PATH"]])
    threading.Thread(target=_watch, args=(NOTES.absolute(), outage, give_up), daemon=True).start()


def _watch(notes: Path, outage: float, give_up: Callable[[str], None]) -> None:
    said: set[str] = set()
    while True:
        time.sleep(2)
        now = time.time()
        found, refused = _noted(notes / "outage.json"), _noted(notes / "refused.json")
        lasts = now - float(found.get("since", now))
        if lasts > outage:
            give_up(
                f"Slurm has given no answer for {lasts / 60:.0f} minutes ({found['said']}), longer than `outage` in "
                "slurm/site.yaml allows. Its jobs go on; ask for the target again when it answers: what they have made "
                "by then is not made again."
            )
            return
        if lasts > WORTH_SAYING and "outage" not in said:
            _say(f"Slurm does not answer ({found['said']}); asking again, for {outage / 60:.0f} minutes at most.")
            said.add("outage")
        elif not found and "outage" in said:
            _say("Slurm answers again.")
            said.remove("outage")
        if refused and "refused" not in said:
            _say(
                f"Slurm takes no more jobs for now ({refused['said']}); submitting again as others end. "
                "`jobs` in slurm/site.yaml limits how many are submitted at a time."
            )
            said.add("refused")


def _noted(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def how_it_ended(log: Path) -> str | None:
    """How the job with a log of Slurm's ended, and on which node, in words; None if that is not known."""
    state = node = ""
    try:
        lines = (NOTES / "jobs.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        try:
            facts = json.loads(line)
        except ValueError:
            continue
        if facts.get("number") == log.stem:
            state, node = facts.get("state") or state, facts.get("node") or node
    return f"Slurm says of job {log.stem}: {state} on node {node}" if state and node else None


# The queue


@dataclass(frozen=True)
class Queued:
    """A job of this folder that Slurm knows.

    Attributes:
        number: Slurm's.
        name: its rule and run.
        state: `PENDING` or `RUNNING`.
        reason: why it waits, as Slurm says it, or the node on which it runs.
    """

    number: str
    name: str
    state: str
    reason: str

    def __str__(self) -> str:
        said = f"waits ({self.reason})" if self.state == "PENDING" else f"runs on {self.reason}"
        return f"{self.name}\n    job {self.number} {said}"


def queued_jobs(folder: Path) -> list[Queued]:
    """The jobs that a Snakemake in a folder has submitted and that wait or run; empty without a Slurm that answers."""
    asked = ["squeue", "--me", "--noheader", "--states=PENDING,RUNNING", "--format=%i|%T|%k|%Z|%R"]
    if shutil.which("squeue") is None:
        return []
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        _say(f"squeue has not answered in {PATIENCE} seconds: what waits in the queue is not known.")
        return []
    if answer.returncode != 0:
        reason = (answer.stderr.strip().splitlines() or ["no answer"])[-1]
        _say(f"{reason}: what waits in the queue is not known.")
        return []
    found = []
    for line in answer.stdout.splitlines():
        number, state, comment, place, reason = line.split("|", 4)
        if comment.startswith(COMMENT) and Path(place) == folder:
            rule, _, run = comment.removeprefix(COMMENT).split(" [")[0].partition("_wildcards_")
            found.append(Queued(number, f"{rule} {run}".strip(), state, reason.strip("()")))
    return found


def cancel_waiting_jobs(folder: Path) -> None:
    """Cancel the jobs that an earlier Snakemake in this folder has left in the queue, not those that run.

    They have nothing to lose. Were they to start after a new job has made the same run, Snakemake would delete its
    manifest first, and give it back only when the job has found that there is nothing to do.
    """
    left = [job.number for job in queued_jobs(folder) if job.state == "PENDING"]
    if not left:
        return
    try:
        subprocess.run(["scancel", "--state=PENDING", *left], check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        _say(f"scancel has not answered in {PATIENCE} seconds: {len(left)} jobs of an earlier Snakemake may stay.")
    else:
        _say(f"Cancelled {len(left)} jobs that an earlier Snakemake has left in the queue.")


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
