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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from corelib.cluster.slurm_clients import FOLDER, Notes, call
from corelib.runs.requests import BOOKKEEPING

PATIENCE = 60
"""Seconds until an answer of the controller is given up."""

COMMENT = "rule_"
"""With which the executor's comments on its jobs begin."""

NOTES = BOOKKEEPING / "slurm"
"""Where `slurm_clients` notes which jobs were submitted and since when Slurm does not answer."""

STATES = ("PENDING", "RUNNING", "SUSPENDED", "CONFIGURING", "COMPLETING")
"""Of jobs that have not ended."""

UNCONFIGURED = "Could not establish a configuration source"
"""The error of Slurm's commands on a machine that belongs to no cluster."""

WORTH_SAYING = 60.0
"""Seconds of an outage after which the terminal says so."""


# Outages


def be_patient(repository: Path, outage: float, give_up: Callable[[str], None]) -> None:
    """Let Snakemake's executor call the workflow's own commands in place of Slurm's.

    Those wait for a Slurm that does not answer (`slurm_clients`). A thread says in the terminal what they wait for.

    Args:
        repository: the folder of the Snakefile.
        outage: seconds for which Slurm may give no answer.
        give_up: called with a sentence after that time; Snakemake then ends, and its jobs go on.
    """
    shutil.rmtree(NOTES, ignore_errors=True)
    NOTES.mkdir(parents=True)
    settings = {"patience": outage, "snakemake": os.getpid()}
    (NOTES / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    os.environ[FOLDER] = str(NOTES.absolute())
    os.environ["CORELIB_PYTHON"] = sys.executable
    os.environ["PATH"] = os.pathsep.join([str(repository / "slurm/bin"), os.environ["PATH"]])
    threading.Thread(target=_watch, args=(Notes(NOTES.absolute()), give_up), daemon=True).start()


def _watch(notes: Notes, give_up: Callable[[str], None]) -> None:
    """Say what the clients wait for, and end it when it takes too long."""
    is_out = is_full = False
    while not notes.has_given_up():
        time.sleep(2)
        outage = notes.outage()
        lasts, said = (outage["last"] - outage["since"], outage["said"]) if outage else (0.0, "")
        if notes.is_past_patience() and outage:
            notes.give_up()
            give_up(
                f"Slurm has given no answer for {lasts / 60:.0f} minutes ({said}), longer than `outage` in "
                "slurm/site.yaml allows. Its jobs go on; ask for the target again when it answers: what they have made "
                "by then is not made again."
            )
        elif lasts > WORTH_SAYING and not is_out:
            _say(f"Slurm does not answer ({said}); asking again, for {notes.patience / 60:.0f} minutes at most.")
            is_out = True
        elif not outage and is_out:
            _say("Slurm answers again.")
            is_out = False
        if (refusal := notes.refusal()) and not is_full:
            _say(
                f"Slurm takes no more jobs for now ({refusal}); submitting again as others end. "
                "`jobs` in slurm/site.yaml limits how many are submitted at a time."
            )
            is_full = True
    if is_out:
        _say("Interrupted while Slurm did not answer: its jobs go on, unless you cancel them (`scancel`).")


def how_it_ended(log: Path) -> str | None:
    """How the job with a log of Slurm's ended, and on which node, in words; None if that is not known."""
    job = Notes(NOTES).jobs().get(log.stem)
    return f"Slurm says of job {log.stem}: {job.state} on node {job.node}" if job and job.state and job.node else None


# The queue


@dataclass(frozen=True)
class Queued:
    """A job of this folder that Slurm knows.

    Attributes:
        number: Slurm's.
        name: its rule and run.
        state: one of `STATES`.
        reason: why it waits, as Slurm says it, or the node on which it runs.
    """

    number: str
    name: str
    state: str
    reason: str

    @property
    def waits(self) -> bool:
        """Whether it has not begun."""
        return self.state == "PENDING"

    def __str__(self) -> str:
        runs = "runs" if self.state == "RUNNING" else f"is {self.state.lower()}"
        said = f"waits ({self.reason})" if self.waits else f"{runs} on {self.reason}"
        return f"{self.name}\n    job {self.number} {said}"


def queued_jobs(folder: Path) -> list[Queued]:
    """The jobs that a Snakemake in a folder has submitted and that wait or run; empty without a Slurm that answers."""
    columns = "%i|%T|%k|%Z|%R"
    asked = [
        "squeue",
        "--all",
        f"--user={os.getuid()}",
        "--noheader",
        f"--states={','.join(STATES)}",
        f"--format={columns}",
    ]
    if shutil.which("squeue") is None:
        return []
    answer = call(asked, seconds=PATIENCE)
    if answer.status is None:
        _say(f"squeue has not answered in {PATIENCE} seconds: what waits in the queue is not known.")
        return []
    if UNCONFIGURED in answer.errors:
        return []
    if answer.status != 0:
        reason = (answer.errors.strip().splitlines() or ["no answer"])[-1]
        _say(f"{reason}: what waits in the queue is not known.")
        return []
    found = []
    for line in answer.output.splitlines():
        cells = line.split("|", 4)
        if len(cells) < 5:  # a comment with a line break
            continue
        number, state, comment, place, reason = cells
        if comment.startswith(COMMENT) and Path(place) == folder:
            rule, _, run = comment.removeprefix(COMMENT).split(" [")[0].partition("_wildcards_")
            found.append(Queued(number, f"{rule} {run}".strip(), state, reason.strip("()")))
    return found


def cancel_waiting_jobs(folder: Path) -> None:
    """Cancel the jobs that an earlier Snakemake in this folder has left in the queue, not those that run.

    They have nothing to lose. Were they to start after a new job has made the same run, Snakemake would delete its
    manifest first, and give it back only when the job has found that there is nothing to do.
    """
    left = [job.number for job in queued_jobs(folder) if job.waits]
    if not left:
        return
    try:
        done = subprocess.run(["scancel", "--state=PENDING", *left], check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        _say(f"scancel has not answered in {PATIENCE} seconds: {len(left)} jobs of an earlier Snakemake may stay.")
    else:
        if done.returncode != 0:
            _say(f"scancel has failed: {len(left)} jobs of an earlier Snakemake may stay.")
            return
        _say(f"Cancelled {len(left)} jobs that an earlier Snakemake has left in the queue.")


def _say(sentence: str) -> None:
    with suppress(OSError):  # a terminal that was closed
        print(sentence, file=sys.stderr, flush=True)
