"""Calls of Slurm's commands, which may fail or not answer in time.

Only the standard library is imported (see `corelib.cluster.slurm_commands`).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from corelib.cluster.slurm_notes import CONTROLLER, SlurmNotes

COMMANDS = Path(__file__).resolve().parents[2] / "slurm/bin"
"""The folder of the workflow's own commands."""

QUERY_TIMEOUT = 20.0
"""Seconds after which a query is given up."""

OUTAGE_ERRORS = re.compile(
    r"Socket timed out|Unable to contact|Connection (refused|reset|timed out)|Communication|Transport endpoint|"
    r"Zero Bytes|standby mode|[Aa]uthentication|[Mm]unge|connect failure|persistent connection|slurmdbd|database|"
    r"timed out"
)
"""Error lines about a daemon that does not answer, or not properly."""

NO_ACCOUNTING_ERRORS = re.compile(r"storage is disabled|supported accounting_storage")
"""Errors of `sacct` and `sacctmgr` at a site that keeps no accounts."""


def find_slurm_command(program: str) -> str | None:
    """The path of Slurm's command: the first on PATH that is not one of this workflow's."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        path = Path(folder or ".", program)
        if os.access(path, os.X_OK) and path.is_file() and path.resolve().parent != COMMANDS:
            return str(path)
    return None


def slurm_environment() -> dict[str, str]:
    """The environment without variables that change which jobs, nodes and columns Slurm's commands list."""
    prefixes = ("SQUEUE_", "SACCT_", "SINFO_", "SLURM_TIME_FORMAT")
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


@dataclass(frozen=True)
class Reply:
    """The exit status and the output of a command; the status is None if it did not answer in time."""

    status: int | None
    output: str
    errors: str

    @property
    def is_outage(self) -> bool:
        """Whether a daemon that the site has did not answer."""
        lines = [line for line in self.errors.splitlines() if "error" in line.lower()] or [self.errors]
        reports_outage = any(OUTAGE_ERRORS.search(line) for line in lines) and not NO_ACCOUNTING_ERRORS.search(
            self.errors
        )
        return self.status is None or (self.status != 0 and reports_outage)


def call(command: Sequence[str], stdin: str | None = None, seconds: float = QUERY_TIMEOUT) -> Reply:
    """Call a command of Slurm's and wait for its end."""
    try:
        done = subprocess.run(
            command,
            input="" if stdin is None else stdin,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
            env=slurm_environment(),
        )
    except subprocess.TimeoutExpired as error:
        stderr = error.stderr.decode(errors="replace") if isinstance(error.stderr, bytes) else error.stderr or ""
        return Reply(None, "", f"{stderr}\n{Path(command[0]).name} has not answered within {seconds:.0f} seconds")
    return Reply(done.returncode, done.stdout, done.stderr)


def query_queue(columns: str, notes: SlurmNotes) -> list[list[str]] | None:
    """The rows of `squeue` for all jobs of this user; None if it does not answer."""
    squeue = find_slurm_command("squeue") or "squeue"
    options = ["--all", f"--user={os.getuid()}", "--states=all", "--noheader", f"--format={columns}"]
    reply = call([squeue, *options])
    if reply.status != 0:
        notes.no_answer(CONTROLLER, reply.errors)
        return None
    notes.answered(CONTROLLER)
    rows = [[cell.strip() for cell in line.split("|", columns.count("|"))] for line in reply.output.splitlines()]
    return [row for row in rows if len(row) == columns.count("|") + 1]


def call_with_retries(command: Sequence[str], notes: SlurmNotes, daemon: str) -> int:
    """Pass a command to Slurm, again and again while a daemon does not answer."""
    while True:
        reply = call(command)
        if not reply.is_outage:
            notes.answered(daemon)
            break
        notes.no_answer(daemon, reply.errors)
        if notes.is_past_patience():
            break
        time.sleep(notes.pause)
    sys.stdout.write(reply.output)
    sys.stderr.write(reply.errors)
    return reply.status if reply.status is not None else 1
