"""Active jobs, whoever submitted them: the leases that they hold, and the last lines of their logs."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from corelib.runs.layout import RUNS, SHARDS
from corelib.runs.lease import EXPIRY, RENEWAL
from corelib.runs.lease_owner import TIME, Owner, read_owner

LOG_FOLDER = Path("logs")


@dataclass(frozen=True)
class ActiveJob:
    """A job that holds the lease of its run.

    Attributes:
        run: `STAGE/SLUG-DIGEST`, followed by the shard if the job computes one.
        lease: path of the lease.
        owner: the process that holds the lease.
        renewed: time of the last renewal, by the clock of the owner's machine or of the file server.
        silent: seconds since the last heartbeat.
        said: the last line of the job's log, without its time.
    """

    run: str
    lease: Path
    owner: Owner
    renewed: float
    silent: float
    said: str

    @property
    def lives(self) -> bool:
        """Whether the job sent a heartbeat recently, or its process is seen to be alive."""
        return not self.owner.is_gone() and (self.owner.is_from_here() or self.silent <= EXPIRY)

    def __str__(self) -> str:
        since = datetime.strptime(self.owner.began, TIME)
        duration = timedelta(seconds=max(0, round((datetime.now().astimezone() - since).total_seconds())))
        state = self.said if self.lives else f"no heartbeat for {self.silent:.0f} s, presumed dead"
        return f"{self.run}\n    {self.owner.place}, for {duration}: {state}"


def find_active_jobs(known: Collection[str] = (), patience: float = 0.0) -> list[ActiveJob]:
    """All jobs that hold a lease below the working directory, sorted by run.

    The clocks of other machines may differ from this one's. A job that seems dead therefore counts as alive if the
    scheduler lists it, or if it renews its lease while it is watched.

    Args:
        known: numbers of the jobs that the scheduler lists as running.
        patience: seconds for which the leases of jobs that seem dead are watched; `WATCH_SECONDS` is enough.
    """
    jobs = []
    for path in sorted([*RUNS.glob("*/*/manifest.lease"), *RUNS.glob(f"*/*/{SHARDS}/*.lease")]):
        try:
            owner, renewed = read_owner(path), path.stat().st_mtime
        except OSError:  # released meanwhile
            continue
        if owner is not None:
            stage, run, *rest = path.relative_to(RUNS).with_suffix("").parts
            shard = rest[1:]
            logs = [LOG_FOLDER / stage / run / f"{part}.log" for part in shard or ["gather"]] + [
                LOG_FOLDER / stage / f"{run}.log"
            ]
            log = next((log for log in logs if log.exists()), logs[-1])
            silent = 0.0 if owner.job in known else abs(time.time() - renewed)
            jobs.append(ActiveJob("/".join([stage, run, *shard]), path, owner, renewed, silent, _last_line(log)))
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and not all(job.lives for job in jobs):
        time.sleep(min(1.0, patience))
        jobs = [job if job.lives else replace(job, silent=_observed_silence(job)) for job in jobs]
    return jobs


WATCH_SECONDS = 1.5 * RENEWAL
"""Seconds within which a living job renews its lease."""


def _observed_silence(job: ActiveJob) -> float:
    """Seconds since the last heartbeat of a job: 0 if it has renewed or released its lease meanwhile."""
    try:
        return job.silent if job.lease.stat().st_mtime == job.renewed else 0.0
    except OSError:
        return 0.0


def _last_line(log: Path) -> str:
    """The last line of a log that is not blank, without date and time."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return "no log yet"
    last = next((line for line in reversed(lines) if line.strip()), "")
    return last.split(" ", 2)[-1] or "empty log"
