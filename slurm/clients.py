"""Slurm's commands as Snakemake's executor calls them, for a Slurm that fails now and then.

    python slurm/clients.py sbatch|squeue|sacct|sacctmgr ARGUMENTS...

The workflow puts `slurm/bin`, whose programs call this one, before Slurm's own commands on PATH. The executor (2.8.0)
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
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = "CORELIB_SLURM"
"""The environment variable that names the folder of notes."""

SETTINGS = "settings.json"
"""In that folder: `patience`, the seconds for which Slurm may give no answer, and `pause`, between two questions."""

DEFAULTS = {"patience": 1800.0, "pause": 5.0}

SUBMISSIONS = 2.0
"""Jobs that are submitted in a second, at most."""

ANSWER_WITHIN = 55.0
"""Seconds in which a status query has to end: the executor gives it up after 60."""

SINGLE_CALL = 20.0
"""Seconds after which one call of a Slurm command is given up."""

FORGOTTEN_AFTER = 120.0
"""Seconds after which a job that Slurm lists nowhere is taken for ended. Its files say whether it has done its work."""

LIMIT = re.compile(r"MaxSubmitJob|MaxJobCount|temporarily unable to accept job")
"""A limit on the number of jobs: it passes when other jobs end."""

OUTAGE = re.compile(
    r"Socket timed out|Unable to contact|Connection (refused|reset|timed out)|Communication|Transport endpoint|"
    r"Zero Bytes|standby mode|Resource temporarily unavailable|[Aa]uthentication|[Mm]unge|connect failure|"
    r"persistent connection|slurmdbd|database|timed out"
)
"""No or no proper answer of a daemon."""

NO_ACCOUNTING = re.compile(r"storage is disabled|supported accounting_storage")
"""What `sacct` and `sacctmgr` say at a site that keeps no accounts."""

ENDED_BADLY = {"FAILED", "NODE_FAIL", "BOOT_FAIL"}
"""States of a job for which its node may be to blame."""

FINAL_ONLY_LATER = {"NODE_FAIL", "PREEMPTED"}
"""Slurm puts such a job back into its queue, if it may, within seconds. One that stays in this state has ended."""


def main(program: str, arguments: Sequence[str]) -> int:
    """Do what one command line asks, and return its exit status."""
    real = slurms_own(program)
    notes = Notes(Path(os.environ[FOLDER])) if FOLDER in os.environ else None
    try:
        if notes and program in ("squeue", "sacct") and "--name" in arguments:
            return say_states(_value(arguments, "--name"), notes)
        if real is None:
            print(f"{program}: there is none on PATH besides this workflow's", file=sys.stderr)
            return 127
        if notes and program == "sbatch" and "--parsable" in arguments:
            return submit(real, list(arguments), notes)
        if notes and program == "sacctmgr":
            return ask_patiently([real, *arguments], notes)
    except KeyboardInterrupt:  # Ctrl-C, which ends Snakemake as well
        if notes:
            notes.give_up()
        return 130
    return os.execv(real, [real, *arguments])


def slurms_own(program: str) -> str | None:
    """The path of Slurm's command: the first on PATH that is not one of this workflow's."""
    ours = Path(__file__).resolve().parent / "bin"
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        path = Path(folder or ".", program)
        if os.access(path, os.X_OK) and path.is_file() and path.resolve().parent != ours:
            return str(path)
    return None


@dataclass(frozen=True)
class Reply:
    """What a command said, and its exit status; None if it did not answer in time."""

    status: int | None
    output: str
    errors: str

    @property
    def is_outage(self) -> bool:
        """Whether a daemon did not answer."""
        return self.status is None or (self.status != 0 and OUTAGE.search(self.errors) is not None)


def call(command: Sequence[str], stdin: str | None = None, seconds: float = SINGLE_CALL) -> Reply:
    """Call a command and wait for its end."""
    try:
        done = subprocess.run(
            command,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return Reply(None, "", f"{Path(command[0]).name} has not answered in {seconds:.0f} seconds")
    return Reply(done.returncode, done.stdout, done.stderr)


# Notes


@dataclass
class Job:
    """A submitted job.

    Attributes:
        number: Slurm's.
        run: the name of the Snakemake run that has submitted it.
        comment: what the executor calls it, the same in each attempt.
        submitted: when, in seconds since the epoch.
        state: the last one that was seen, and since when.
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
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        settings = {**DEFAULTS, **_read(folder / SETTINGS)}
        self.patience, self.pause = float(settings["patience"]), float(settings["pause"])

    def add(self, **facts: Any) -> None:
        """Append a line about a job."""
        with (self._folder / "jobs.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(facts) + "\n")

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
        with suppress(FileNotFoundError):
            for line in (self._folder / "jobs.jsonl").read_text(encoding="utf-8").splitlines():
                with suppress(ValueError):  # one that a full disk has cut off
                    yield json.loads(line)

    # Outages

    def outage(self) -> dict[str, Any]:
        """Since when Slurm has given no answer and what was said instead; empty if it answers."""
        return _read(self._folder / "outage.json")

    def no_answer(self, said: str) -> None:
        """Note that Slurm has given no answer."""
        known = self.outage()
        now = time.time()
        _write(self._folder / "outage.json", {"since": known.get("since", now), "last": now, "said": _last_line(said)})

    def answered(self) -> None:
        """Note that Slurm has answered."""
        (self._folder / "outage.json").unlink(missing_ok=True)

    def give_up(self) -> None:
        """Note that nobody waits for an answer any more."""
        (self._folder / "given_up").touch()

    def is_past_patience(self) -> bool:
        """Whether Slurm has given no answer for too long, or nobody waits for one."""
        outage = self.outage()
        return (self._folder / "given_up").exists() or time.time() - outage.get("since", math.inf) > self.patience

    # Submissions

    def refused(self, said: str) -> None:
        """Note that Slurm takes no more jobs for now."""
        _write(self._folder / "refused.json", {"said": _last_line(said), "last": time.time()})

    def accepted(self) -> None:
        """Note that Slurm takes jobs."""
        (self._folder / "refused.json").unlink(missing_ok=True)

    def wait_for_turn(self) -> None:
        """Return no sooner after the last turn than `SUBMISSIONS` allows."""
        name = re.sub(r"\W", "_", str(self._folder.resolve()))[-100:]
        with (Path(tempfile.gettempdir()) / f"corelib-slurm-{os.getuid()}-{name}").open("a+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.seek(0)
            with suppress(ValueError):
                time.sleep(min(1 / SUBMISSIONS, max(0.0, float(stream.read()) + 1 / SUBMISSIONS - time.time())))
            stream.truncate(0)
            stream.write(str(time.time()))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, content: dict[str, Any]) -> None:
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_text(json.dumps(content), encoding="utf-8")
    new.replace(path)


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "no answer"


# States


def say_states(run: str, notes: Notes) -> int:
    """Print `NUMBER|STATE` of every job that was submitted under the name of a Snakemake run.

    Slurm may fail for a while: it is asked again, and after `ANSWER_WITHIN` seconds the executor has to ask again.
    """
    until = time.monotonic() + ANSWER_WITHIN
    while (states := _states_of(run, notes)) is None:
        if time.monotonic() + notes.pause + 2 * SINGLE_CALL > until or notes.is_past_patience():
            return 1
        time.sleep(notes.pause)
    print(*(f"{number}|{state}" for number, state in states.items()), sep="\n")
    return 0


def _states_of(run: str, notes: Notes) -> dict[str, str] | None:
    """The state of each job, or None if Slurm has given no answer."""
    jobs = {number: job for number, job in notes.jobs().items() if job.run == run}
    if not jobs:
        return {}
    squeue = slurms_own("squeue") or "squeue"
    reply = call([squeue, "--me", "--states=all", "--noheader", "--format=%i|%T|%N"])
    if reply.status != 0:
        notes.no_answer(reply.errors)
        return None
    found = _table(reply.output)
    lost = {}
    if missing := [number for number in jobs if number not in found]:
        accounts = _accounts_of(missing, notes)
        if accounts is None:
            return None
        lost = {number: accounts.get(number, ("", "")) for number in missing}
    notes.answered()
    states = {}
    for number, job in jobs.items():
        state, node = found[number] if number in found else lost[number]
        states[number] = _settled(job, state, node, is_listed=number in found, notes=notes)
    return {number: state for number, state in states.items() if state}


def _accounts_of(numbers: Sequence[str], notes: Notes) -> dict[str, tuple[str, str]] | None:
    """State and node of jobs in Slurm's accounts; empty where none are kept, None if the database does not answer."""
    sacct = slurms_own("sacct")
    if sacct is None:
        return {}
    columns = ["-X", "--parsable2", "--noheader", "--format=JobIDRaw,State,NodeList"]
    reply = call([sacct, *columns, f"--jobs={','.join(numbers)}"])
    if reply.status == 0:
        return _table(reply.output)
    if NO_ACCOUNTING.search(reply.errors):
        return {}
    notes.no_answer(reply.errors)
    return None


def _settled(job: Job, state: str, node: str, *, is_listed: bool, notes: Notes) -> str:
    """The state of a job for the executor; empty as long as it is not clear. Changes are noted."""
    now = time.time()
    shown = state or "missing"
    if not is_listed and state in ("RUNNING", "PENDING", "SUSPENDED", "REQUEUED"):
        shown = "missing"  # the controller knows better: the accounts have lost its end
    if (shown, node or job.node) != (job.state, job.node):
        job.since = job.since if shown == job.state else now
        notes.add(number=job.number, state=shown, since=job.since, node=node)
    if shown == "missing":
        return "COMPLETED" if now - max(job.since, job.submitted) > FORGOTTEN_AFTER else ""
    if shown in FINAL_ONLY_LATER:
        return "FAILED" if now - job.since > FORGOTTEN_AFTER else "RUNNING"
    return shown


def _table(output: str) -> dict[str, tuple[str, str]]:
    rows = [line.split("|") for line in output.splitlines() if line.count("|") >= 2]
    return {row[0].strip(): ((row[1].split() or [""])[0], row[2].strip()) for row in rows}


# Submission


def submit(real: str, arguments: list[str], notes: Notes) -> int:
    """Submit a job as `sbatch` does; again and again, while Slurm refuses it for a reason that passes.

    A job whose submission was not answered may be in the queue all the same: it is looked for before the next attempt.
    """
    run, comment = _value(arguments, "--job-name"), _value(arguments, "--comment")
    marked = f"{comment} [{uuid.uuid4().hex[:8]}]"
    asked = _named(arguments, comment, marked)
    stdin = sys.stdin.read() if "/dev/stdin" in arguments else None
    is_in_doubt, pause, began = False, notes.pause / 2, time.time()
    while not notes.is_past_patience():
        number, printed = _number_of(marked, notes) if is_in_doubt else "", ""
        if number == "":
            is_in_doubt = False
            notes.wait_for_turn()
            reply = call([real, *_excluding(asked, _nodes_to_avoid(comment, asked, notes))], stdin, seconds=120)
            if reply.status == 0:
                printed = reply.output.strip()
                number = printed.split(";")[0]
            elif LIMIT.search(reply.errors):
                notes.answered()
                notes.refused(reply.errors)
            elif reply.is_outage:
                notes.no_answer(reply.errors)
                is_in_doubt = True
            else:
                sys.stderr.write(reply.errors)
                return reply.status or 1
        if number:
            notes.answered()
            notes.accepted()
            notes.add(number=number, run=run, comment=comment, submitted=began)
            print(printed or number)
            return 0
        time.sleep(pause)
        pause = min(2 * pause, 6 * notes.pause)
    print(f"sbatch: {notes.outage().get('said', 'interrupted')}", file=sys.stderr)
    return 1


def _named(arguments: Sequence[str], comment: str, marked: str) -> list[str]:
    """The command line with a name that says what the job is, and a log that begins with the name of its node."""
    rule, _, wildcards = comment.removeprefix("rule_").partition("_wildcards_")
    said = {"--job-name": f"{rule} {wildcards}".strip(), "--comment": marked}
    named = [said.get(before, argument) for before, argument in zip(["", *arguments], arguments, strict=False)]
    return [
        f"--wrap={_beginning_with_its_node(argument.removeprefix('--wrap='))}"
        if argument.startswith("--wrap=")
        else argument
        for argument in named
    ]


def _beginning_with_its_node(command: str) -> str:
    """The command of a job, which runs in the Apptainer container in which Snakemake runs, if it runs in one."""
    if image := os.environ.get("APPTAINER_CONTAINER"):
        binds = [f"--bind={bind}" for bind in os.environ.get("APPTAINER_BIND", "").split(",") if bind]
        command = shlex.join(["apptainer", "exec", "--nv", *binds, image, "sh", "-c", command])
    return f'echo "Node: ${{SLURMD_NODENAME:-$(hostname)}}"; {command}'


def _number_of(marked: str, notes: Notes) -> str | None:
    """The number of the job with a comment of its own; empty if there is none, None if Slurm gives no answer."""
    squeue = slurms_own("squeue") or "squeue"
    listing = call([squeue, "--me", "--states=all", "--noheader", "--format=%i|%k"])
    if listing.status != 0:
        notes.no_answer(listing.errors)
        return None
    rows = (line.partition("|") for line in listing.output.splitlines())
    return next((number.strip() for number, _, comment in rows if comment.strip() == marked), "")


def _value(arguments: Sequence[str], option: str) -> str:
    return arguments[arguments.index(option) + 1] if option in arguments else ""


# Nodes


def _nodes_to_avoid(comment: str, arguments: Sequence[str], notes: Notes) -> list[str]:
    """The nodes on which this job has failed, and those on which the last jobs of two and more runs have failed.

    None is avoided if no other node of the partition would be left.
    """
    ended = [job for job in notes.jobs().values() if job.node and job.state in {*ENDED_BADLY, "COMPLETED"}]
    avoided = {job.node for job in ended if job.comment == comment and job.state in ENDED_BADLY}
    for node in {job.node for job in ended}:
        there = sorted((job for job in ended if job.node == node), key=lambda job: job.since)
        last_success = max((place for place, job in enumerate(there) if job.state == "COMPLETED"), default=-1)
        if len({job.comment for job in there[last_success + 1 :]}) >= 2:
            avoided.add(node)
    if not avoided:
        return []
    partition = _value(arguments, "-p")
    sinfo = slurms_own("sinfo") or "sinfo"
    chosen = [f"--partition={partition}"] if partition else []
    reply = call([sinfo, "--noheader", "--Node", "--responding", "--format=%N", *chosen])
    others = set(reply.output.split()) - avoided
    return sorted(avoided) if reply.status == 0 and others else []


def _excluding(arguments: list[str], nodes: Sequence[str]) -> list[str]:
    if not nodes:
        return arguments
    asked = [argument.removeprefix("--exclude=") for argument in arguments if argument.startswith("--exclude=")]
    rest = [argument for argument in arguments if not argument.startswith("--exclude=")]
    return [f"--exclude={','.join([*asked, *nodes])}", *rest]


# Other questions


def ask_patiently(command: Sequence[str], notes: Notes) -> int:
    """Pass a question to Slurm, again while it gives no answer."""
    while (reply := call(command)).is_outage and not NO_ACCOUNTING.search(reply.errors):
        notes.no_answer(reply.errors)
        if notes.is_past_patience():
            break
        time.sleep(notes.pause)
    else:
        notes.answered()
    sys.stdout.write(reply.output)
    sys.stderr.write(reply.errors)
    return reply.status if reply.status is not None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
