"""Submission of jobs, repeated while Slurm refuses one for a temporary reason, and away from nodes on which it failed.

Only the standard library is imported (see `corelib.cluster.slurm_commands`).
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
import uuid
from collections.abc import Sequence
from typing import Any

from corelib.cluster.slurm_calls import call, query_queue
from corelib.cluster.slurm_job_states import NODE_FAULT_STATES
from corelib.cluster.slurm_notes import CONTROLLER, SlurmNotes

SUBMISSION_TIMEOUT = 180.0
"""Seconds after which a submission is given up. `sbatch` itself waits for two minutes if the controller is full."""

NUM_SEARCHES = 3
"""Number of searches in the queue for a job whose submission was not answered, before it is submitted again."""

LIMIT_ERRORS = re.compile(
    r"SubmitJob|MaxJobCount|temporarily unable to accept|job queue full|Resource temporarily unavailable"
)
"""Errors about a limit on the number of jobs, which holds until other jobs end."""

HYPHEN = ".."
"""Replaces a hyphen in a GPU model, which the executor does not accept."""


def submit(real: str, arguments: list[str], notes: SlurmNotes) -> int:
    """Submit a job as `sbatch` does, again and again while Slurm refuses it for a temporary reason.

    A job whose submission was not answered may be in the queue nevertheless, so the queue is searched for it before the
    next attempt.
    """
    run, comment = option_value(arguments, "--job-name"), option_value(arguments, "--comment")
    mark = f"[{uuid.uuid4().hex[:8]}]"
    command = _named(arguments, comment, mark)
    stdin = sys.stdin.read() if "/dev/stdin" in arguments else None
    searches, pause, began = 0, notes.pause / 2, time.time()
    while not notes.is_past_patience():
        number = None
        if searches:
            rows = query_queue("%i|%j|%k", notes)
            if rows is not None:
                searches -= 1
                number = next((row[0] for row in rows if mark in row[1] or mark in row[2]), None)
        else:
            notes.throttle()
            excluded = _nodes_to_avoid(real, comment, command, notes)
            reply = call([real, *_excluding(command, excluded)], stdin, SUBMISSION_TIMEOUT)
            numbers = re.findall(r"^(\d+)(?:;\S+)?\s*$", reply.output, re.MULTILINE)
            if reply.status == 0 and numbers:
                number = numbers[-1]
            elif LIMIT_ERRORS.search(reply.errors):
                notes.refused(reply.errors)
                searches = NUM_SEARCHES if reply.status is None else 0
            elif reply.is_outage or reply.status == 0:  # status 0 without a job number is no answer either
                notes.no_answer(CONTROLLER, reply.errors)
                searches = NUM_SEARCHES
            else:
                notes.answered(CONTROLLER)
                sys.stderr.write(reply.errors)
                return reply.status or 1
        if number is not None:
            notes.answered(CONTROLLER)
            notes.accepted()
            _add_for_certain(notes, number=number, run=run, comment=comment, submitted=began)
            print(number)
            return 0
        time.sleep(pause)
        pause = min(2 * pause, 6 * notes.pause)
    print(f"sbatch: {notes.outage().get('message', 'interrupted')}", file=sys.stderr)
    return 1


def _add_for_certain(notes: SlurmNotes, **facts: Any) -> None:
    """Record a job that Slurm has accepted, whatever it takes; without the record nobody would query its state."""
    while True:
        try:
            notes.add(**facts)
            return
        except OSError:  # no space on the disk
            time.sleep(notes.pause)


def _named(arguments: Sequence[str], comment: str, mark: str) -> list[str]:
    """The command line with a job name of rule and run, and with a log that begins with the name of the job's node."""
    rule, _, wildcards = comment.removeprefix("rule_").partition("_wildcards_")
    values = {"--job-name": f"{rule} {wildcards} {mark}", "--comment": f"{comment} {mark}"}
    named = [values.get(option, argument) for option, argument in zip(["", *arguments], arguments, strict=False)]
    return [_adapted(argument) for argument in named]


def _adapted(argument: str) -> str:
    if argument.startswith("--gpus="):
        return argument.replace(HYPHEN, "-")
    if argument.startswith("--wrap="):
        return f"--wrap={_printing_its_node(argument.removeprefix('--wrap='))}"
    return argument


def _printing_its_node(command: str) -> str:
    """The command of a job, which first prints its node; in the Apptainer container of Snakemake, if there is one."""
    if image := os.environ.get("APPTAINER_CONTAINER"):
        binds = [f"--bind={bind}" for bind in os.environ.get("APPTAINER_BIND", "").split(",") if bind]
        command = shlex.join(["apptainer", "exec", "--nv", *binds, image, "sh", "-c", command])
    return f'echo "Node: ${{SLURMD_NODENAME:-$(hostname)}}"; {command}'


def option_value(arguments: Sequence[str], option: str) -> str:
    """The argument that follows an option; empty if the option is not given."""
    return arguments[list(arguments).index(option) + 1] if option in arguments else ""


def _nodes_to_avoid(real: str, comment: str, arguments: list[str], notes: SlurmNotes) -> list[str]:
    """The nodes on which this job has failed, and those on which the latest jobs of two or more runs have failed.

    None is avoided if the job could not start on the other nodes according to Slurm.
    """
    ended = [job for job in notes.jobs().values() if job.node and job.state in (*NODE_FAULT_STATES, "COMPLETED")]
    avoided = {job.node for job in ended if job.comment == comment and job.state in NODE_FAULT_STATES}
    for node in {job.node for job in ended}:
        on_node = sorted((job for job in ended if job.node == node), key=lambda job: job.since)
        last_success = max((index for index, job in enumerate(on_node) if job.state == "COMPLETED"), default=-1)
        if len({job.comment for job in on_node[last_success + 1 :]}) >= 2:
            avoided.add(node)
    if not avoided:
        return []
    reply = call([real, "--test-only", *_excluding(arguments, sorted(avoided))], "")
    return sorted(avoided) if reply.status == 0 else []


def _excluding(arguments: list[str], nodes: Sequence[str]) -> list[str]:
    if not nodes:
        return arguments
    excluded = [argument.removeprefix("--exclude=") for argument in arguments if argument.startswith("--exclude=")]
    rest = [argument for argument in arguments if not argument.startswith("--exclude=")]
    return [f"--exclude={','.join([*excluded, *nodes])}", *rest]
