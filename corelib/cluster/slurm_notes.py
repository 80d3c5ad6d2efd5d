"""Records of the jobs that were submitted to Slurm, of its outages and of refused submissions.

They are files in the folder that the environment variable `NOTES_VARIABLE` names. Only the standard library is imported
(see `corelib.cluster.slurm_commands`).
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOTES_VARIABLE = "CORELIB_SLURM"
"""The environment variable with the path of the folder of notes."""

DEFAULTS = {"patience": 1800.0, "pause": 5.0, "snakemake": 0}
"""Defaults of the settings in `settings.json` of the folder of notes (see `SlurmNotes`)."""

CONTROLLER, DATABASE = "slurmctld", "slurmdbd"
"""The daemons: one answers `squeue`, `sbatch` and `sinfo`, the other `sacct`, `sacctmgr` and `sshare`."""

MAX_SUBMISSIONS_PER_SECOND = 2.0
"""Maximum number of jobs submitted per second."""


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


class SlurmNotes:
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
