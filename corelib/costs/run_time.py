"""The run time and memory that a job asks of Slurm.

Slurm wants to know a job's run time before it starts. The work of a job follows from its settings
(`corelib.costs.workload`); how long that takes is a value of the site (`slurm/site.yaml`).
"""

from __future__ import annotations

import math

from pydantic import PositiveFloat

from corelib.costs.workload import Costs, Countable, Networks, workload_of_job
from corelib.runs.stages import STAGES
from corelib.settings.section import Section

OVERHEAD_MINUTES = 10
"""Start-up time of a job: Python, models, a slow file system."""

MINUTES = 60
"""The run time of a job whose work is not counted in images."""

SAFETY_FACTOR = 2.0
"""On the expected time, since Slurm ends a job that takes longer than it asked for."""

SIZES = Networks(resolution=None, shrink=8, trained=0, prompt=0, features=0)
"""The site's seconds hold for an image of any size."""


class Seconds(Section):
    """How long a device takes, in seconds.

    Attributes:
        train: for one latent that passes through the U-Net forwards and backwards.
        denoise: for one latent that passes through it forwards; a guided step has two.
        encode: for one image that is read and passes through an encoder, a classifier or a feature extractor.
    """

    train: PositiveFloat
    denoise: PositiveFloat
    encode: PositiveFloat

    @property
    def costs(self) -> Costs:
        """The price of each unit of work."""
        return Costs(
            train_passes=self.train,
            forward_passes=self.denoise,
            decodes=self.encode,
            encodes=self.encode,
            classifications=self.encode,
            feature_extractions=self.encode,
            reads=self.encode,
        )


def minutes_of(run: Countable, seconds: Seconds | None, attempt: int, max_minutes: int | None = None) -> int:
    """The run time to ask for, in minutes.

    Args:
        run: the run; of samples, a job is one shard.
        seconds: how long the device takes; None if that is not known.
        attempt: 1 at first; an attempt that failed may have been short of time.
        max_minutes: the largest run time that a job may ask for. One that needs more is ended, and its next attempt
            goes on from its checkpoint.
    """
    expected = 0.0 if seconds is None else seconds.costs.of(workload_of_job(run, SIZES))
    first = math.ceil(OVERHEAD_MINUTES + SAFETY_FACTOR * expected / 60) if expected else MINUTES
    return first * attempt if max_minutes is None else min(first * attempt, max_minutes)


def memory_of(stage: str, attempt: int, max_memory_mb: int | None = None) -> int:
    """The memory to ask for, in MB. An attempt that failed may have been short of it."""
    asked = STAGES[stage].memory_mb * attempt
    return asked if max_memory_mb is None else min(asked, max_memory_mb)
