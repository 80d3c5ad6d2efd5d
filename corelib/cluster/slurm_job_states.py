"""The states of submitted jobs, as Snakemake's executor asks for them.

Only the standard library is imported (see `corelib.cluster.slurm_commands`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from corelib.cluster.slurm_calls import QUERY_TIMEOUT, call, find_slurm_command, query_queue
from corelib.cluster.slurm_notes import DATABASE, Job, SlurmNotes

QUERY_DEADLINE = 55.0
"""Seconds within which a status query must end: the executor gives it up after 60."""

FORGOTTEN_AFTER = 120.0
"""Seconds after which a job that Slurm lists nowhere counts as ended. Its files show whether it has done its work."""

NODE_FAULT_STATES = ("FAILED", "NODE_FAIL", "BOOT_FAIL")
"""States of a job for which its node may be to blame."""

FINAL_STATES = (*NODE_FAULT_STATES, "COMPLETED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE", "PREEMPTED")
"""States of a job that has ended."""

REQUEUED_STATES = ("NODE_FAIL", "PREEMPTED")
"""Final states from which Slurm requeues a job within seconds, if allowed. A job that stays in such a state has
ended."""

HELD_STATES = ("REQUEUE_HOLD", "SPECIAL_EXIT")
"""States of a job that its node could not start and that waits for an administrator."""


def print_states(run: str, notes: SlurmNotes) -> int:
    """Print `NUMBER|STATE` of every job that was submitted under the name of a Snakemake run.

    If Slurm fails, the query is repeated for up to `QUERY_DEADLINE` seconds; then the executor has to query again. Once
    nobody waits any more, an empty list lets the executor keep its jobs and end.
    """
    deadline = time.monotonic() + QUERY_DEADLINE
    while not notes.is_past_patience():
        states = _states_of(run, notes)
        if states is not None:
            print(*(f"{number}|{state}" for number, state in states.items()), sep="\n")
            return 0
        if time.monotonic() + notes.pause + 2 * QUERY_TIMEOUT > deadline:
            return 1
        time.sleep(notes.pause)
    return 0


def final_state_of_log(log: Path, notes: SlurmNotes) -> str | None:
    """The final state and the node of the job with this Slurm log, in words; None if they are not known."""
    job = notes.jobs().get(log.stem)
    return (
        f"Slurm's state of job {log.stem}: {job.state} on node {job.node}" if job and job.state and job.node else None
    )


def _states_of(run: str, notes: SlurmNotes) -> dict[str, str] | None:
    """The state of each job of a Snakemake run; None if Slurm does not answer."""
    jobs = {number: job for number, job in notes.jobs().items() if job.run == run}
    rows = query_queue("%i|%T|%N|%r", notes) if jobs else []
    if rows is None:
        return None
    listed = {number: (state, node, reason) for number, state, node, reason in rows if state != "REVOKED"}
    ended = {number for number, job in jobs.items() if job.state in FINAL_STATES and number not in listed}
    lost = [number for number in jobs if number not in listed and number not in ended]
    accounted = _accounting_of(lost, notes)
    if accounted is None:
        return None
    states = {}
    for number, job in jobs.items():
        if number in ended:
            states[number] = job.state
        elif number in listed:
            states[number] = _state_of(job, *listed[number], notes)
        elif number in accounted:
            states[number] = _state_of(job, *accounted[number], "", notes)
        else:
            _note(job, "missing", "", notes)
            if time.time() - max(job.since, job.submitted) > FORGOTTEN_AFTER:
                states[number] = "COMPLETED"
    return {number: "FAILED" if state in REQUEUED_STATES else state for number, state in states.items()}


def _accounting_of(numbers: Sequence[str], notes: SlurmNotes) -> dict[str, tuple[str, str]] | None:
    """State and node of jobs that have ended, from Slurm's accounting; None if the site has it and it does not answer.

    A job that the controller does not know but that is running in the accounting is omitted: its end was not recorded.
    """
    sacct = find_slurm_command("sacct")
    if sacct is None or not numbers:
        return {}
    columns = ["-X", "--parsable2", "--noheader", "--format=JobIDRaw,State,NodeList"]
    reply = call([sacct, *columns, f"--jobs={','.join(numbers)}"])
    if reply.is_outage:
        notes.no_answer(DATABASE, reply.errors)
        return None
    notes.answered(DATABASE)
    rows = [line.split("|") for line in reply.output.splitlines() if line.count("|") == 2]
    states = {number: ((state.split() or [""])[0], node) for number, state, node in rows}
    return {number: (state, node) for number, (state, node) in states.items() if state in FINAL_STATES}


def _state_of(job: Job, state: str, node: str, reason: str, notes: SlurmNotes) -> str:
    """The state to report to the executor for a job that Slurm knows.

    A job that may be requeued, or that is held, is reported as failed only after `FORGOTTEN_AFTER` seconds.
    """
    if state in HELD_STATES or reason.startswith("launch failed"):
        _note(job, "held", node, notes)
        if time.time() - job.since <= FORGOTTEN_AFTER:
            return "PENDING"
        call([find_slurm_command("scancel") or "scancel", job.number])
        state = "FAILED"
    _note(job, state, node, notes)
    if state in REQUEUED_STATES and time.time() - job.since <= FORGOTTEN_AFTER:
        return "RUNNING"
    return state


def _note(job: Job, state: str, node: str, notes: SlurmNotes) -> None:
    """Record the state and the node of a job if they have changed."""
    node = node if re.fullmatch(r"[\w.,\[\]-]+", node) else ""
    if (state, node or job.node) != (job.state, job.node):
        since = job.since if state == job.state else time.time()
        job.state, job.since, job.node = state, since, node or job.node
        with suppress(OSError):
            notes.add(number=job.number, state=state, since=since, node=node)
