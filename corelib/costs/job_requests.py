"""The run time and memory that a job requests from Slurm.

Slurm needs a job's run time before the job starts. The work of a job follows from its settings
(`corelib.costs.workload`); the time per unit of work is a value of the site (`slurm/site.yaml`).
"""

from __future__ import annotations

import math

from corelib.costs.device_time import Seconds
from corelib.costs.workload import Countable, NetworkSizes, workload_of_job
from corelib.runs.stage_registry import STAGES

OVERHEAD_MINUTES = 10
"""Start-up time of a job in minutes: Python, models, a slow file system."""

DEFAULT_MINUTES = 60
"""The run time, in minutes, of a job whose work is not counted in images."""

SAFETY_FACTOR = 2.0
"""Factor on the expected time, since Slurm ends a job that exceeds its requested run time."""

SITE_NETWORKS = NetworkSizes(resolution=None, shrink=8, trained=0, prompt=0, features=0)
"""The sizes for a site, whose seconds hold for an image of any size."""


def requested_minutes(run: Countable, seconds: Seconds | None, attempt: int, max_minutes: int | None = None) -> int:
    """The run time to request, in minutes.

    Args:
        run: the run; a job of samples is one shard.
        seconds: time per unit of work on the device; None if it is not known.
        attempt: number of the attempt, from 1; a failed attempt may have run out of time.
        max_minutes: maximum run time that a job may request. A job that needs more is ended, and its next attempt
            resumes from its checkpoint.
    """
    expected = 0.0 if seconds is None else seconds.costs.of(workload_of_job(run, SITE_NETWORKS))
    first = math.ceil(OVERHEAD_MINUTES + SAFETY_FACTOR * expected / 60) if expected else DEFAULT_MINUTES
    return first * attempt if max_minutes is None else min(first * attempt, max_minutes)


def requested_memory_mb(stage: str, attempt: int, max_memory_mb: int | None = None) -> int:
    """The memory to request, in MB. A failed attempt may have run out of memory."""
    memory_mb = STAGES[stage].memory_mb * attempt
    return memory_mb if max_memory_mb is None else min(memory_mb, max_memory_mb)
