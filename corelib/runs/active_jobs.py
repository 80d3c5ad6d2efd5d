"""What is being computed now, whoever submitted it: the leases of living jobs, and the last lines of their logs."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from corelib.runs.layout import RUNS, SHARDS
from corelib.runs.lease import EXPIRY, RENEWAL
from corelib.runs.owner import TIME, Owner, read_owner

LOGS = Path("logs")


@dataclass(frozen=True)
class Running:
    """A job that holds the lease of its run.

    Attributes:
        run: `STAGE/SLUG-DIGEST`, and the shard, if it is one.
        lease: the file.
        owner: who computes it.
        renewed: when the lease was last renewed, by the clock of the owner's machine or of the file server.
        silent: seconds since it was last heard of.
        said: the last line of its log, without its time.
    """

    run: str
    lease: Path
    owner: Owner
    renewed: float
    silent: float
    said: str

    @property
    def lives(self) -> bool:
        """Whether it has been heard of lately, or is seen to live."""
        return not self.owner.is_gone() and (self.owner.is_from_here() or self.silent <= EXPIRY)

    def __str__(self) -> str:
        since = datetime.strptime(self.owner.began, TIME)
        lasts = timedelta(seconds=max(0, round((datetime.now().astimezone() - since).total_seconds())))
        state = self.said if self.lives else f"it has died, not heard of for {self.silent:.0f} s"
        return f"{self.run}\n    {self.owner.place}, for {lasts}: {state}"


def running_jobs(known: Collection[str] = (), patience: float = 0.0) -> list[Running]:
    """All jobs that hold a lease below the working directory, in the order of their runs.

    The clock of another machine may differ from this one's. So a job that seems to have died is believed to live if the
    scheduler knows it, or if it renews its lease.

    Args:
        known: numbers of the jobs that the scheduler lists as running.
        patience: seconds for which the leases of jobs that seem to have died are watched; `WATCH` is enough.
    """
    found = []
    for path in sorted([*RUNS.glob("*/*/manifest.lease"), *RUNS.glob(f"*/*/{SHARDS}/*.lease")]):
        try:
            owner, renewed = read_owner(path), path.stat().st_mtime
        except OSError:  # given back meanwhile
            continue
        if owner is not None:
            stage, run, *below = path.relative_to(RUNS).with_suffix("").parts
            shard = below[1:]
            logs = [LOGS / stage / run / f"{part}.log" for part in shard or ["gather"]] + [LOGS / stage / f"{run}.log"]
            log = next((log for log in logs if log.exists()), logs[-1])
            silent = 0.0 if owner.job in known else abs(time.time() - renewed)
            found.append(Running("/".join([stage, run, *shard]), path, owner, renewed, silent, _last_line(log)))
    until = time.monotonic() + patience
    while time.monotonic() < until and not all(job.lives for job in found):
        time.sleep(min(1.0, patience))
        found = [job if job.lives else replace(job, silent=_seen_silence(job)) for job in found]
    return found


WATCH = 1.5 * RENEWAL
"""Seconds in which the lease of a living job is renewed."""


def _seen_silence(job: Running) -> float:
    """Seconds for which a job is silent: none if it has renewed or given back its lease meanwhile."""
    try:
        return job.silent if job.lease.stat().st_mtime == job.renewed else 0.0
    except OSError:
        return 0.0


def _last_line(log: Path) -> str:
    """The last line of a log, without date and time."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return "no log yet"
    last = next((line for line in reversed(lines) if line.strip()), "")
    return last.split(" ", 2)[-1] or "nothing said yet"
