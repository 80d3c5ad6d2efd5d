"""Slurm's commands as Snakemake's executor calls them, for a Slurm that fails now and then.

    python corelib/cluster/slurm_clients.py COMMAND ARGUMENTS...

The workflow puts `slurm/bin`, whose links call this module, before Slurm's own commands on PATH. The executor (2.8.0)
forgets every job once a single cycle of status queries has failed, counts a refused submission as a failed attempt of
the job, sends a job back to the node on which it has just failed, and does not know a job that Slurm has cancelled
(`CANCELLED by 1000`). So:

- A status query waits for Slurm's answer, and lists every job that the executor has submitted, also one that the
  controller has forgotten.
- A submission that Slurm refuses for a reason that passes (an outage, a limit on the number of jobs) is tried again.
- At most `SUBMISSIONS` jobs are submitted in a second.
- A job is named by its rule and run, and avoids the nodes on which it failed.

Every other call goes to Slurm as it is. What was submitted is noted in a folder that `FOLDER` names; without that
variable all calls go to Slurm as they are. Only the standard library is imported: this starts once a command.
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

FOLDER = "CORELIB_SLURM"
"""The environment variable that names the folder of notes."""

COMMANDS = Path(__file__).resolve().parents[2] / "slurm/bin"
"""The folder of the workflow's own commands."""

DEFAULTS = {"patience": 1800.0, "pause": 5.0, "snakemake": 0}
"""Settings, in `settings.json` of the folder of notes: as of `Notes`."""

CONTROLLER, DATABASE = "slurmctld", "slurmdbd"
"""The daemons that answer: `squeue`, `sbatch` and `sinfo`; `sacct`, `sacctmgr` and `sshare`."""

SUBMISSIONS = 2.0
"""Jobs that are submitted in a second, at most."""

ANSWER_WITHIN = 55.0
"""Seconds in which a status query has to end: the executor gives it up after 60."""

QUERY, SUBMISSION = 20.0, 180.0
"""Seconds after which a call is given up. `sbatch` itself waits for two minutes where the controller is full."""

FORGOTTEN_AFTER = 120.0
"""Seconds after which a job that Slurm lists nowhere is taken for ended. Its files say whether it has done its work."""

LOOKS = 3
"""How often a job is looked for of whose submission there is no answer, before it is submitted again."""

LIMIT = re.compile(
    r"SubmitJob|MaxJobCount|temporarily unable to accept|job queue full|Resource temporarily unavailable"
)
"""A limit on the number of jobs: it passes when other jobs end."""

OUTAGE = re.compile(
    r"Socket timed out|Unable to contact|Connection (refused|reset|timed out)|Communication|Transport endpoint|"
    r"Zero Bytes|standby mode|[Aa]uthentication|[Mm]unge|connect failure|persistent connection|slurmdbd|database|"
    r"timed out"
)
"""No or no proper answer of a daemon, in a line that is an error."""

NO_ACCOUNTING = re.compile(r"storage is disabled|supported accounting_storage")
"""What `sacct` and `sacctmgr` say at a site that keeps no accounts."""

BLAMES_NODE = ("FAILED", "NODE_FAIL", "BOOT_FAIL")
"""States of a job for which its node may be to blame."""

FINAL = (*BLAMES_NODE, "COMPLETED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE", "PREEMPTED")
"""States of a job that has ended."""

MAY_GO_ON = ("NODE_FAIL", "PREEMPTED")
"""Of these, Slurm puts jobs back into its queue within seconds, if it may. One that stays in such a state has ended."""

HELD = ("REQUEUE_HOLD", "SPECIAL_EXIT")
"""States of a job that its node could not start, and that waits for an administrator."""

HYPHEN = ".."
"""Stands for a hyphen in a GPU model, which the executor does not take."""


def main(program: str, arguments: Sequence[str]) -> int:
    """Do what one command line asks, and return its exit status."""
    real = slurms_own(program)
    notes = Notes(Path(os.environ[FOLDER])) if FOLDER in os.environ else None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if notes and program in ("squeue", "sacct") and "--name" in arguments:
            return say_states(_value(arguments, "--name"), notes)
        if real is None:
            print(f"{program}: there is none on PATH besides this workflow's", file=sys.stderr)
            return 127
        if notes and program == "sbatch" and "--parsable" in arguments:
            return submit(real, list(arguments), notes)
        if notes and program in ("sacctmgr", "sshare", "sinfo"):
            return ask_patiently([real, *arguments], notes, CONTROLLER if program == "sinfo" else DATABASE)
    except KeyboardInterrupt:  # Snakemake is ended as well
        if notes:
            notes.give_up()
        return 130
    return os.execv(real, [real, *arguments])


def slurms_own(program: str) -> str | None:
    """The path of Slurm's command: the first on PATH that is not one of this workflow's."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        path = Path(folder or ".", program)
        if os.access(path, os.X_OK) and path.is_file() and path.resolve().parent != COMMANDS:
            return str(path)
    return None


def slurms_variables() -> dict[str, str]:
    """The environment without what changes which jobs, nodes and columns Slurm's commands list."""
    ours = ("SQUEUE_", "SACCT_", "SINFO_", "SLURM_TIME_FORMAT")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@dataclass(frozen=True)
class Reply:
    """What a command said, and its exit status; None if it did not answer in time."""

    status: int | None
    output: str
    errors: str

    @property
    def is_outage(self) -> bool:
        """Whether a daemon did not answer that there is."""
        lines = [line for line in self.errors.splitlines() if "error" in line.lower()] or [self.errors]
        said = any(OUTAGE.search(line) for line in lines) and not NO_ACCOUNTING.search(self.errors)
        return self.status is None or (self.status != 0 and said)


def call(command: Sequence[str], stdin: str | None = None, seconds: float = QUERY) -> Reply:
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
            env=slurms_variables(),
        )
    except subprocess.TimeoutExpired as error:
        said = error.stderr.decode(errors="replace") if isinstance(error.stderr, bytes) else error.stderr or ""
        return Reply(None, "", f"{said}\n{Path(command[0]).name} has not answered in {seconds:.0f} seconds")
    return Reply(done.returncode, done.stdout, done.stderr)


def queue(columns: str, notes: Notes) -> list[list[str]] | None:
    """What `squeue` says of all jobs of this user, line by line; None if it gives no answer."""
    squeue = slurms_own("squeue") or "squeue"
    asked = ["--all", f"--user={os.getuid()}", "--states=all", "--noheader", f"--format={columns}"]
    reply = call([squeue, *asked])
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
        number: Slurm's.
        run: the name of the Snakemake run that has submitted it.
        comment: what the executor calls it, the same in each attempt.
        submitted: when, in seconds since the epoch.
        state: the last one that was seen, and since when; `missing` if Slurm lists it nowhere.
        node: on which it runs or ran, or several, as Slurm lists them.
    """

    number: str
    run: str
    comment: str
    submitted: float
    state: str = ""
    since: float = 0.0
    node: str = ""


class Notes:
    """What is known of submitted jobs and of outages, in files of a folder.

    Lines are only ever appended, since two submissions and a query may write at once.

    Attributes:
        patience: seconds for which Slurm may give no answer.
        pause: seconds between two calls of a Slurm that gives none.
        snakemake: the process that submits; 0 if that is not known.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        settings = {**DEFAULTS, **_read(folder / "settings.json")}
        self.patience, self.pause = float(settings["patience"]), float(settings["pause"])
        self.snakemake = int(settings["snakemake"])

    def add(self, **facts: Any) -> None:
        """Append a line about a job."""
        with (self._folder / "jobs.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(f"\n{json.dumps(facts)}\n")  # what a full disk has cut off before ends with the first newline

    def jobs(self) -> dict[str, Job]:
        """All jobs of which there are notes, by number, in the order of their submission."""
        found: dict[str, Job] = {}
        for facts in self._lines():
            if "run" in facts:
                found[facts["number"]] = Job(**facts)
            elif facts["number"] in found:
                job = found[facts["number"]]
                job.state, job.since, job.node = facts["state"], facts["since"], facts["node"] or job.node
        return found

    def _lines(self) -> Iterator[dict[str, Any]]:
        with suppress(OSError):
            for line in (self._folder / "jobs.jsonl").read_text(encoding="utf-8").splitlines():
                with suppress(ValueError):
                    yield json.loads(line)

    # Outages

    def outage(self) -> dict[str, Any]:
        """The longer of the outages of the two daemons: since when, when last, what was said; empty without one."""
        found = [_read(self._outage_of(daemon)) for daemon in (CONTROLLER, DATABASE)]
        return max(found, key=_lasts)

    def no_answer(self, daemon: str, said: str) -> None:
        """Note that a daemon has given no answer."""
        now, path = time.time(), self._outage_of(daemon)
        _write(path, {"since": _read(path).get("since", now), "last": now, "said": _last_line(said)})

    def answered(self, daemon: str) -> None:
        """Note that a daemon has answered."""
        self._outage_of(daemon).unlink(missing_ok=True)

    def _outage_of(self, daemon: str) -> Path:
        return self._folder / f"outage-{daemon}.json"

    def give_up(self) -> None:
        """Note that nobody waits for an answer any more."""
        with suppress(OSError):
            (self._folder / "given_up").touch()

    def has_given_up(self) -> bool:
        """Whether nobody waits for an answer any more."""
        return (self._folder / "given_up").exists() or not self._snakemake_lives()

    def is_past_patience(self) -> bool:
        """Whether Slurm has given no answer for too long, or nobody waits for one."""
        return self.has_given_up() or _lasts(self.outage()) > self.patience

    def _snakemake_lives(self) -> bool:
        try:
            os.kill(self.snakemake or os.getpid(), 0)
        except OSError as error:
            return isinstance(error, PermissionError)
        return True

    # Submissions

    def refused(self, said: str) -> None:
        """Note that Slurm takes no more jobs for now."""
        _write(self._folder / "refused.json", {"said": _last_line(said)})

    def refusal(self) -> str | None:
        """What Slurm says of a job that it does not take for now; None if it has taken the last one."""
        return _read(self._folder / "refused.json").get("said")

    def accepted(self) -> None:
        """Note that Slurm takes jobs."""
        (self._folder / "refused.json").unlink(missing_ok=True)

    def wait_for_turn(self) -> None:
        """Return no sooner after the last turn than `SUBMISSIONS` allows."""
        name = re.sub(r"\W", "_", str(self._folder.resolve()))[-100:]
        try:
            with Path(f"/tmp/corelib-slurm-{os.getuid()}-{name}").open("a+") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                stream.seek(0)
                with suppress(ValueError):
                    time.sleep(min(1 / SUBMISSIONS, max(0.0, float(stream.read()) + 1 / SUBMISSIONS - time.time())))
                stream.truncate(0)
                stream.write(str(time.time()))
        except OSError:  # no room, or no locks: of two submissions at once, each takes twice the time
            time.sleep(2 / SUBMISSIONS)


def _lasts(outage: Mapping[str, Any]) -> float:
    return float(outage["last"]) - float(outage["since"]) if outage else -math.inf


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    new = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError):  # a note is of less worth than an answer
        new.write_text(json.dumps(content), encoding="utf-8")
        new.replace(path)


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "no answer"


# States


def say_states(run: str, notes: Notes) -> int:
    """Print `NUMBER|STATE` of every job that was submitted under the name of a Snakemake run.

    Slurm may fail for a while: it is asked again, and after `ANSWER_WITHIN` seconds the executor has to ask again. Once
    nobody waits any more, an empty list lets the executor keep its jobs and come to its end.
    """
    until = time.monotonic() + ANSWER_WITHIN
    while not notes.is_past_patience():
        states = _states_of(run, notes)
        if states is not None:
            print(*(f"{number}|{state}" for number, state in states.items()), sep="\n")
            return 0
        if time.monotonic() + notes.pause + 2 * QUERY > until:
            return 1
        time.sleep(notes.pause)
    return 0


def _states_of(run: str, notes: Notes) -> dict[str, str] | None:
    """The state of each job, or None if Slurm has given no answer."""
    jobs = {number: job for number, job in notes.jobs().items() if job.run == run}
    rows = queue("%i|%T|%N|%r", notes) if jobs else []
    if rows is None:
        return None
    listed = {number: (state, node, reason) for number, state, node, reason in rows if state != "REVOKED"}
    ended = {number for number, job in jobs.items() if job.state in FINAL and number not in listed}
    lost = [number for number in jobs if number not in listed and number not in ended]
    accounts = _accounts_of(lost, notes)
    if accounts is None:
        return None
    states = {}
    for number, job in jobs.items():
        if number in ended:
            states[number] = job.state
        elif number in listed:
            states[number] = _state_of(job, *listed[number], notes)
        elif number in accounts:
            states[number] = _state_of(job, *accounts[number], "", notes)
        else:
            _note(job, "missing", "", notes)
            if time.time() - max(job.since, job.submitted) > FORGOTTEN_AFTER:
                states[number] = "COMPLETED"
    return {number: "FAILED" if state in MAY_GO_ON else state for number, state in states.items()}


def _accounts_of(numbers: Sequence[str], notes: Notes) -> dict[str, tuple[str, str]] | None:
    """State and node of jobs that have ended, by Slurm's accounts; None if these ought to answer and do not.

    A job that the controller does not know and that runs by the accounts is one of which they have lost the end.
    """
    sacct = slurms_own("sacct")
    if sacct is None or not numbers:
        return {}
    columns = ["-X", "--parsable2", "--noheader", "--format=JobIDRaw,State,NodeList"]
    reply = call([sacct, *columns, f"--jobs={','.join(numbers)}"])
    if reply.is_outage:
        notes.no_answer(DATABASE, reply.errors)
        return None
    notes.answered(DATABASE)
    rows = [line.split("|") for line in reply.output.splitlines() if line.count("|") == 2]
    found = {number: ((state.split() or [""])[0], node) for number, state, node in rows}
    return {number: (state, node) for number, (state, node) in found.items() if state in FINAL}


def _state_of(job: Job, state: str, node: str, reason: str, notes: Notes) -> str:
    """The state of a job that Slurm knows, for the executor: of one that may go on, or is held, it takes a while."""
    if state in HELD or reason.startswith("launch failed"):
        _note(job, "held", node, notes)
        if time.time() - job.since <= FORGOTTEN_AFTER:
            return "PENDING"
        call([slurms_own("scancel") or "scancel", job.number])
        state = "FAILED"
    _note(job, state, node, notes)
    if state in MAY_GO_ON and time.time() - job.since <= FORGOTTEN_AFTER:
        return "RUNNING"
    return state


def _note(job: Job, state: str, node: str, notes: Notes) -> None:
    """Note the state and the node of a job, if they are not those that were noted last."""
    node = node if re.fullmatch(r"[\w.,\[\]-]+", node) else ""
    if (state, node or job.node) != (job.state, job.node):
        since = job.since if state == job.state else time.time()
        job.state, job.since, job.node = state, since, node or job.node
        with suppress(OSError):
            notes.add(number=job.number, state=state, since=since, node=node)


# Submission


def submit(real: str, arguments: list[str], notes: Notes) -> int:
    """Submit a job as `sbatch` does; again and again, while Slurm refuses it for a reason that passes.

    A job whose submission was not answered may be in the queue all the same: it is looked for before the next attempt.
    """
    run, comment = _value(arguments, "--job-name"), _value(arguments, "--comment")
    mark = f"[{uuid.uuid4().hex[:8]}]"
    asked = _named(arguments, comment, mark)
    stdin = sys.stdin.read() if "/dev/stdin" in arguments else None
    looks, pause, began = 0, notes.pause / 2, time.time()
    while not notes.is_past_patience():
        number = None
        if looks:
            rows = queue("%i|%j|%k", notes)
            if rows is not None:
                looks -= 1
                number = next((row[0] for row in rows if mark in row[1] or mark in row[2]), None)
        else:
            notes.wait_for_turn()
            reply = call([real, *_excluding(asked, _nodes_to_avoid(real, comment, asked, notes))], stdin, SUBMISSION)
            numbers = re.findall(r"^(\d+)(?:;\S+)?\s*$", reply.output, re.MULTILINE)
            if reply.status == 0 and numbers:
                number = numbers[-1]
            elif LIMIT.search(reply.errors):
                notes.refused(reply.errors)
                looks = LOOKS if reply.status is None else 0
            elif reply.is_outage or reply.status == 0:  # with status 0 it says something, but no number
                notes.no_answer(CONTROLLER, reply.errors)
                looks = LOOKS
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
    print(f"sbatch: {notes.outage().get('said', 'interrupted')}", file=sys.stderr)
    return 1


def _add_for_certain(notes: Notes, **facts: Any) -> None:
    """Note a job that Slurm has taken; without that note nobody would ask for its state."""
    while True:
        try:
            notes.add(**facts)
            return
        except OSError:  # no room on the disk
            time.sleep(notes.pause)


def _named(arguments: Sequence[str], comment: str, mark: str) -> list[str]:
    """The command line with a name that says what the job is, and a log that begins with the name of its node."""
    rule, _, wildcards = comment.removeprefix("rule_").partition("_wildcards_")
    said = {"--job-name": f"{rule} {wildcards} {mark}", "--comment": f"{comment} {mark}"}
    named = [said.get(before, argument) for before, argument in zip(["", *arguments], arguments, strict=False)]
    return [_completed(argument) for argument in named]


def _completed(argument: str) -> str:
    if argument.startswith("--gpus="):
        return argument.replace(HYPHEN, "-")
    if argument.startswith("--wrap="):
        return f"--wrap={_beginning_with_its_node(argument.removeprefix('--wrap='))}"
    return argument


def _beginning_with_its_node(command: str) -> str:
    """The command of a job, which runs in the Apptainer container in which Snakemake runs, if it runs in one."""
    if image := os.environ.get("APPTAINER_CONTAINER"):
        binds = [f"--bind={bind}" for bind in os.environ.get("APPTAINER_BIND", "").split(",") if bind]
        command = shlex.join(["apptainer", "exec", "--nv", *binds, image, "sh", "-c", command])
    return f'echo "Node: ${{SLURMD_NODENAME:-$(hostname)}}"; {command}'


def _value(arguments: Sequence[str], option: str) -> str:
    return arguments[list(arguments).index(option) + 1] if option in arguments else ""


# Nodes


def _nodes_to_avoid(real: str, comment: str, arguments: list[str], notes: Notes) -> list[str]:
    """The nodes on which this job has failed, and those on which the last jobs of two and more runs have failed.

    None is avoided if Slurm says that the job could not start on the others.
    """
    ended = [job for job in notes.jobs().values() if job.node and job.state in (*BLAMES_NODE, "COMPLETED")]
    avoided = {job.node for job in ended if job.comment == comment and job.state in BLAMES_NODE}
    for node in {job.node for job in ended}:
        there = sorted((job for job in ended if job.node == node), key=lambda job: job.since)
        last_success = max((place for place, job in enumerate(there) if job.state == "COMPLETED"), default=-1)
        if len({job.comment for job in there[last_success + 1 :]}) >= 2:
            avoided.add(node)
    if not avoided:
        return []
    reply = call([real, "--test-only", *_excluding(arguments, sorted(avoided))], "")
    return sorted(avoided) if reply.status == 0 else []


def _excluding(arguments: list[str], nodes: Sequence[str]) -> list[str]:
    if not nodes:
        return arguments
    asked = [argument.removeprefix("--exclude=") for argument in arguments if argument.startswith("--exclude=")]
    rest = [argument for argument in arguments if not argument.startswith("--exclude=")]
    return [f"--exclude={','.join([*asked, *nodes])}", *rest]


# Other questions


def ask_patiently(command: Sequence[str], notes: Notes, daemon: str) -> int:
    """Pass a question to Slurm, again while a daemon gives no answer."""
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
