"""The time that devices take for a unit of work: data-sheet GPUs, a core of a CPU on the miniature, a site's GPUs."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import PositiveFloat

from corelib.costs.workload import Costs, Workload
from corelib.settings.section import Section


@dataclass(frozen=True)
class GPU:
    """A GPU for which hours are forecast.

    Attributes:
        name: name that its maker gives it.
        peak: peak FLOP per second in bf16 without sparsity, from its data sheet.
        share: share of the peak that a good implementation reaches.
        source: source of that share.
    """

    name: str
    peak: float
    share: float
    source: str


GPUS = (
    GPU("A100", 312e12, 0.385, "the best published for this U-Net: 1.34 s for a guided image of 100 steps"),
    GPU("H100", 989e12, 0.385, "assumed to be that of the A100"),
)

CORE_SECONDS = Costs(
    train_passes=5.1e-3,
    forward_passes=1.45e-3,
    decodes=1.0e-3,
    encodes=0.8e-3,
    classifications=0.3e-3,
    feature_extractions=1.0e-3,
)

JOB_SECONDS = 3.4
"""`CORE_SECONDS` are those of the study mini on one core of an AMD EPYC server, from the provenance records of CORE on
Forget06. `JOB_SECONDS` is the start-up time of a job there: Python, torch, diffusers."""


def core_seconds(work: Workload, jobs: int) -> float:
    """Seconds that one CPU core takes for work that is divided into `jobs` jobs."""
    return CORE_SECONDS.of(work) + JOB_SECONDS * jobs


class Seconds(Section):
    """The time that a device takes per unit of work, in seconds.

    Attributes:
        train: per latent, for a forward and a backward pass of the U-Net.
        denoise: per latent, for a forward pass of the U-Net; a guided step has two.
        encode: per image, for reading it and for one pass of an encoder, a classifier or a feature extractor.
    """

    train: PositiveFloat
    denoise: PositiveFloat
    encode: PositiveFloat

    @property
    def costs(self) -> Costs:
        """The cost of each unit of work, in seconds."""
        return Costs(
            train_passes=self.train,
            forward_passes=self.denoise,
            decodes=self.encode,
            encodes=self.encode,
            classifications=self.encode,
            feature_extractions=self.encode,
            reads=self.encode,
        )
