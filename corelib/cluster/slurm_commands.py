"""Replacements for Slurm's commands as Snakemake's executor calls them, for a Slurm that fails now and then.

    python corelib/cluster/slurm_commands.py COMMAND ARGUMENTS...

The workflow puts `slurm/bin`, whose commands call this module, before Slurm's own commands on PATH. The executor
(2.8.0) forgets every job once a single cycle of status queries has failed, counts a refused submission as a failed
attempt of the job, sends a job back to the node on which it has just failed, and does not recognize the state of a job
that Slurm has cancelled (`CANCELLED by 1000`). Therefore:

- A status query waits for Slurm's answer, and lists every job that the executor has submitted, including jobs that the
  controller has forgotten.
- A submission that Slurm refuses for a temporary reason (an outage, a limit on the number of jobs) is repeated.
- At most `MAX_SUBMISSIONS_PER_SECOND` jobs are submitted per second.
- A job is named by its rule and run, and avoids the nodes on which it failed.

All other calls are passed to Slurm unchanged. Submitted jobs are recorded in the folder that the environment variable
`NOTES_VARIABLE` names; without that variable all calls are passed to Slurm unchanged. Only the standard library is
imported, since this module starts once per command.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOTES_VARIABLE = "CORELIB_SLURM"
"""The environment variable with the path of the folder of notes."""

COMMANDS = Path(__file__).resolve().parents[2] / "slurm/bin"
"""The folder of the workflow's own commands."""

DEFAULTS = {"patience": 1800.0, "pause": 5.0, "snakemake": 0}
"""Defaults of the settings in `settings.json` of the folder of notes (see `Notes`)."""

CONTROLLER, DATABASE = "slurmctld", "slurmdbd"
"""The daemons: one answers `squeue`, `sbatch` and `sinfo`, the other `sacct`, `sacctmgr` and `sshare`."""

MAX_SUBMISSIONS_PER_SECOND = 2.0
"""Maximum number of jobs submitted per second."""

QUERY_DEADLINE = 55.0
"""Seconds within which a status query must end: the executor gives it up after 60."""

QUERY_TIMEOUT, SUBMISSION_TIMEOUT = 20.0, 180.0
"""Seconds after which a call is given up. `sbatch` itself waits for two minutes if the controller is full."""

FORGOTTEN_AFTER = 120.0
"""Seconds after which a job that Slurm lists nowhere counts as ended. Its files show whether it has done its work."""

NUM_SEARCHES = 3
"""Number of searches in the queue for a job whose submission was not answered, before it is submitted again."""

LIMIT_ERRORS = re.compile(
    r"SubmitJob|MaxJobCount|temporarily unable to accept|job queue full|Resource temporarily unavailable"
)
"""Errors about a limit on the number of jobs, which holds until other jobs end."""

OUTAGE_ERRORS = re.compile(
    r"Socket timed out|Unable to contact|Connection (refused|reset|timed out)|Communication|Transport endpoint|"
    r"Zero Bytes|standby mode|[Aa]uthentication|[Mm]unge|connect failure|persistent connection|slurmdbd|database|"
    r"timed out"
)
"""Error lines about a daemon that does not answer, or not properly."""

NO_ACCOUNTING_ERRORS = re.compile(r"storage is disabled|supported accounting_storage")
"""Errors of `sacct` and `sacctmgr` at a site that keeps no accounts."""

NODE_FAULT_STATES = ("FAILED", "NODE_FAIL", "BOOT_FAIL")
"""States of a job for which its node may be to blame."""

FINAL_STATES = (*NODE_FAULT_STATES, "COMPLETED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE", "PREEMPTED")
"""States of a job that has ended."""

REQUEUED_STATES = ("NODE_FAIL", "PREEMPTED")
"""Final states from which Slurm requeues a job within seconds, if allowed. A job that stays in such a state has
ended."""

HELD_STATES = ("REQUEUE_HOLD", "SPECIAL_EXIT")
"""States of a job that its node could not start and that waits for an administrator."""

HYPHEN = ".."
"""Replaces a hyphen in a GPU model, which the executor does not accept."""


def main(program: str, arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status."""
    real = find_slurm_command(program)
    notes = Notes(Path(os.environ[NOTES_VARIABLE])) if NOTES_VARIABLE in os.environ else None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if notes and program in ("squeue", "sacct") and "--name" in arguments:
            return print_states(_value(arguments, "--name"), notes)
        if real is None:
            print(f"{program}: not found on PATH, apart from this workflow's own", file=sys.stderr)
            return 127
        if notes and program == "sbatch" and "--parsable" in arguments:
            return submit(real, list(arguments), notes)
        if notes and program in ("sacctmgr", "sshare", "sinfo"):
            return call_with_retries([real, *arguments], notes, CONTROLLER if program == "sinfo" else DATABASE)
    except KeyboardInterrupt:  # Snakemake is interrupted as well
        if notes:
            notes.give_up()
        return 130
    return os.execv(real, [real, *arguments])


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


def query_queue(columns: str, notes: Notes) -> list[list[str]] | None:
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


# Notes


@dataclass
class Job:
    """A submitted job.

    Attributes:
        number: Slurm's job number.
        run: name of the Snakemake run that submitted the job.
        comment: the executor's comment on the job, the same in each attempt.
        submitted: time of the submission, in seconds since the epoch.
        state: last observed state; `missing` if Slurm lists the job nowhere.
        since: time since which the job has this state, in seconds since the epoch.
        node: node or nodes on which the job runs or ran, as Slurm lists them.
    """

    number: str
    run: str
    comment: str
    submitted: float
    state: str = ""
    since: float = 0.0
    node: str = ""


class Notes:
    """Records of submitted jobs and of outages, in the files of a folder.

    Lines about jobs are only appended, since two submissions and a query may write at the same time.

    Attributes:
        patience: seconds for which Slurm may not answer.
        pause: seconds between two calls of a Slurm that does not answer.
        snakemake: process ID of the Snakemake that submits; 0 if it is not known.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        settings = {**DEFAULTS, **_read(folder / "settings.json")}
        self.patience, self.pause = float(settings["patience"]), float(settings["pause"])
        self.snakemake = int(settings["snakemake"])

    def add(self, **facts: Any) -> None:
        """Append a line about a job."""
        with (self._folder / "jobs.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(f"\n{json.dumps(facts)}\n")  # the first newline ends a line that a full disk has truncated

    def jobs(self) -> dict[str, Job]:
        """All recorded jobs, by number, in the order of their submission."""
        jobs: dict[str, Job] = {}
        for facts in self._lines():
            if "run" in facts:
                jobs[facts["number"]] = Job(**facts)
            elif facts["number"] in jobs:
                job = jobs[facts["number"]]
                job.state, job.since, job.node = facts["state"], facts["since"], facts["node"] or job.node
        return jobs

    def _lines(self) -> Iterator[dict[str, Any]]:
        with suppress(OSError):
            for line in (self._folder / "jobs.jsonl").read_text(encoding="utf-8").splitlines():
                with suppress(ValueError):
                    yield json.loads(line)

    # Outages

    def outage(self) -> dict[str, Any]:
        """The longer of the two daemons' outages: `since`, `last` and `message`; empty without an outage."""
        outages = [_read(self._outage_file(daemon)) for daemon in (CONTROLLER, DATABASE)]
        return max(outages, key=_duration)

    def no_answer(self, daemon: str, message: str) -> None:
        """Record that a daemon has not answered."""
        now, path = time.time(), self._outage_file(daemon)
        _write(path, {"since": _read(path).get("since", now), "last": now, "message": _last_line(message)})

    def answered(self, daemon: str) -> None:
        """Record that a daemon has answered."""
        self._outage_file(daemon).unlink(missing_ok=True)

    def _outage_file(self, daemon: str) -> Path:
        return self._folder / f"outage-{daemon}.json"

    def give_up(self) -> None:
        """Record that nobody waits for an answer any more."""
        with suppress(OSError):
            (self._folder / "given_up").touch()

    def has_given_up(self) -> bool:
        """Whether nobody waits for an answer any more."""
        return (self._folder / "given_up").exists() or not self._snakemake_lives()

    def is_past_patience(self) -> bool:
        """Whether Slurm has not answered for too long, or nobody waits for an answer any more."""
        return self.has_given_up() or _duration(self.outage()) > self.patience

    def _snakemake_lives(self) -> bool:
        try:
            os.kill(self.snakemake or os.getpid(), 0)
        except OSError as error:
            return isinstance(error, PermissionError)
        return True

    # Submissions

    def refused(self, message: str) -> None:
        """Record that Slurm accepts no more jobs for now."""
        _write(self._folder / "refused.json", {"message": _last_line(message)})

    def refusal(self) -> str | None:
        """Slurm's message about a job that it does not accept for now; None if it has accepted the last one."""
        return _read(self._folder / "refused.json").get("message")

    def accepted(self) -> None:
        """Record that Slurm accepts jobs."""
        (self._folder / "refused.json").unlink(missing_ok=True)

    def throttle(self) -> None:
        """Wait until `MAX_SUBMISSIONS_PER_SECOND` allows another submission after the last one."""
        name = re.sub(r"\W", "_", str(self._folder.resolve()))[-100:]
        try:
            with Path(f"/tmp/corelib-slurm-{os.getuid()}-{name}").open("a+") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                stream.seek(0)
                with suppress(ValueError):
                    time.sleep(
                        min(
                            1 / MAX_SUBMISSIONS_PER_SECOND,
                            max(0.0, float(stream.read()) + 1 / MAX_SUBMISSIONS_PER_SECOND - time.time()),
                        )
                    )
                stream.truncate(0)
                stream.write(str(time.time()))
        except OSError:  # no space or no locks: two submissions at the same time each wait twice as long
            time.sleep(2 / MAX_SUBMISSIONS_PER_SECOND)


def _duration(outage: Mapping[str, Any]) -> float:
    return float(outage["last"]) - float(outage["since"]) if outage else -math.inf


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    new = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError):  # an answer to the executor matters more than a note
        new.write_text(json.dumps(content), encoding="utf-8")
        new.replace(path)


def _last_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "no answer"


# States


def print_states(run: str, notes: Notes) -> int:
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


def _states_of(run: str, notes: Notes) -> dict[str, str] | None:
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


def _accounting_of(numbers: Sequence[str], notes: Notes) -> dict[str, tuple[str, str]] | None:
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


def _state_of(job: Job, state: str, node: str, reason: str, notes: Notes) -> str:
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


def _note(job: Job, state: str, node: str, notes: Notes) -> None:
    """Record the state and the node of a job if they have changed."""
    node = node if re.fullmatch(r"[\w.,\[\]-]+", node) else ""
    if (state, node or job.node) != (job.state, job.node):
        since = job.since if state == job.state else time.time()
        job.state, job.since, job.node = state, since, node or job.node
        with suppress(OSError):
            notes.add(number=job.number, state=state, since=since, node=node)


# Submission


def submit(real: str, arguments: list[str], notes: Notes) -> int:
    """Submit a job as `sbatch` does, again and again while Slurm refuses it for a temporary reason.

    A job whose submission was not answered may be in the queue nevertheless, so the queue is searched for it before the
    next attempt.
    """
    run, comment = _value(arguments, "--job-name"), _value(arguments, "--comment")
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


def _add_for_certain(notes: Notes, **facts: Any) -> None:
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


def _value(arguments: Sequence[str], option: str) -> str:
    return arguments[list(arguments).index(option) + 1] if option in arguments else ""


# Nodes


def _nodes_to_avoid(real: str, comment: str, arguments: list[str], notes: Notes) -> list[str]:
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


# Other commands


def call_with_retries(command: Sequence[str], notes: Notes, daemon: str) -> int:
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
