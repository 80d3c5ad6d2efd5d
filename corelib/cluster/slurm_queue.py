"""Calls of Slurm besides those of Snakemake's executor, and the handling of outages."""

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

from corelib.cluster.slurm_calls import call
from corelib.cluster.slurm_notes import NOTES_VARIABLE, SlurmNotes
from corelib.files.text import counted
from corelib.runs.requests import BOOKKEEPING_FOLDER

PATIENCE = 60
"""Seconds to wait for an answer of the controller."""

COMMENT_PREFIX = "rule_"
"""The beginning of the executor's comments on its jobs."""

NOTES = BOOKKEEPING_FOLDER / "slurm"
"""The folder in which `slurm_commands` records the submitted jobs and outages."""

ACTIVE_STATES = ("PENDING", "RUNNING", "SUSPENDED", "CONFIGURING", "COMPLETING")
"""The states of jobs that have not ended."""

UNCONFIGURED = "Could not establish a configuration source"
"""The error of Slurm's commands on a machine that belongs to no cluster."""

REPORT_AFTER_SECONDS = 60.0
"""Seconds of an outage after which a message is printed."""


# Outages


def wrap_slurm_commands(repository: Path, outage: float, give_up: Callable[[str], None]) -> None:
    """Make Snakemake's executor call the workflow's own commands in place of Slurm's.

    These wait for a Slurm that does not answer (`slurm_commands`). A thread prints messages about outages.

    Args:
        repository: the folder of the Snakefile.
        outage: seconds for which Slurm may not answer.
        give_up: called with a sentence after that time; Snakemake then ends, and its jobs continue.
    """
    shutil.rmtree(NOTES, ignore_errors=True)
    NOTES.mkdir(parents=True)
    settings = {"patience": outage, "snakemake": os.getpid()}
    (NOTES / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    os.environ[NOTES_VARIABLE] = str(NOTES.absolute())
    os.environ["CORELIB_PYTHON"] = sys.executable
    os.environ["PATH"] = os.pathsep.join([str(repository / "slurm/bin"), os.environ["PATH"]])
    threading.Thread(target=_watch, args=(SlurmNotes(NOTES.absolute()), give_up), daemon=True).start()


def _watch(notes: SlurmNotes, give_up: Callable[[str], None]) -> None:
    """Print messages about outages and full queues; give up after an outage that is too long."""
    is_out = is_full = False
    while not notes.has_given_up():
        time.sleep(2)
        outage = notes.outage()
        duration, message = (outage["last"] - outage["since"], outage["message"]) if outage else (0.0, "")
        if notes.is_past_patience() and outage:
            notes.give_up()
            give_up(
                f"Slurm has not answered for {duration / 60:.0f} minutes ({message}), longer than `outage` in "
                "slurm/site.yaml allows. Its jobs continue; ask for the target again when Slurm answers: the results "
                "that they have completed by then are kept."
            )
        elif duration > REPORT_AFTER_SECONDS and not is_out:
            _print(f"Slurm does not answer ({message}); trying again for at most {notes.patience / 60:.0f} minutes.")
            is_out = True
        elif not outage and is_out:
            _print("Slurm answers again.")
            is_out = False
        if (refusal := notes.refusal()) and not is_full:
            _print(
                f"Slurm accepts no more jobs for now ({refusal}); submitting again when others end. "
                "`jobs` in slurm/site.yaml limits the number of submitted jobs."
            )
            is_full = True
    if is_out:
        _print("Interrupted while Slurm did not answer: its jobs continue unless you cancel them (`scancel`).")


# The queue


@dataclass(frozen=True)
class QueuedJob:
    """A job of this folder that Slurm knows.

    Attributes:
        number: Slurm's job number.
        name: rule and run of the job.
        state: one of `ACTIVE_STATES`.
        reason: Slurm's reason why it waits, or the node on which it runs.
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
        status = f"waits ({self.reason})" if self.waits else f"{runs} on {self.reason}"
        return f"{self.name}\n    job {self.number} {status}"


def queued_jobs(folder: Path) -> list[QueuedJob]:
    """The jobs submitted by a Snakemake in a folder that wait or run; empty if Slurm does not answer."""
    columns = "%i|%T|%k|%Z|%R"
    command = [
        "squeue",
        "--all",
        f"--user={os.getuid()}",
        "--noheader",
        f"--states={','.join(ACTIVE_STATES)}",
        f"--format={columns}",
    ]
    if shutil.which("squeue") is None:
        return []
    reply = call(command, seconds=PATIENCE)
    if reply.status is None:
        _print(f"squeue has not answered within {PATIENCE} seconds: the jobs in the queue are not known.")
        return []
    if UNCONFIGURED in reply.errors:
        return []
    if reply.status != 0:
        reason = (reply.errors.strip().splitlines() or ["no answer"])[-1]
        _print(f"{reason}: the jobs in the queue are not known.")
        return []
    jobs = []
    for line in reply.output.splitlines():
        cells = line.split("|", 4)
        if len(cells) < 5:  # a comment with a line break
            continue
        number, state, comment, place, reason = cells
        if comment.startswith(COMMENT_PREFIX) and Path(place) == folder:
            rule, _, run = comment.removeprefix(COMMENT_PREFIX).split(" [")[0].partition("_wildcards_")
            jobs.append(QueuedJob(number, f"{rule} {run}".strip(), state, reason.strip("()")))
    return jobs


def cancel_waiting_jobs(folder: Path) -> None:
    """Cancel the jobs that an earlier Snakemake in this folder left waiting in the queue, not those that run.

    Waiting jobs have no work to lose. If one started after a new job completed the same run, Snakemake would first
    delete the run's manifest, and restore it only after the job noticed that the run is complete.
    """
    waiting = [job.number for job in queued_jobs(folder) if job.waits]
    if not waiting:
        return
    try:
        done = subprocess.run(["scancel", "--state=PENDING", *waiting], check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        _print(
            f"scancel has not answered within {PATIENCE} seconds: {counted(len(waiting), 'job')} of an earlier "
            "Snakemake may remain in the queue."
        )
    else:
        if done.returncode != 0:
            _print(
                f"scancel has failed: {counted(len(waiting), 'job')} of an earlier Snakemake may remain in the queue."
            )
            return
        _print(f"Cancelled {counted(len(waiting), 'job')} that an earlier Snakemake left in the queue.")


def _print(sentence: str) -> None:
    with suppress(OSError):  # a terminal that was closed
        print(sentence, file=sys.stderr, flush=True)
