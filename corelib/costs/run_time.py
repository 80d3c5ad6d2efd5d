"""How much work a job is, counted in images, and how long it may take.

Slurm wants to know a job's run time before it starts. What a run trains on, samples or looks at follows from its
specification; how fast that goes is the site's to say (`slurm/site.yaml`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import TypeVar

from pydantic import PositiveFloat

from corelib.runs.specification import Specification
from corelib.settings.data import LatentsStage, SliceStage
from corelib.settings.evaluation import FIDStage, ReferenceStage
from corelib.settings.sampling import SamplesStage
from corelib.settings.section import Section
from corelib.settings.unlearning import SampledImages, UnlearningStage

Settings = TypeVar("Settings", bound=Section)

Below = Callable[[str], Specification]
"""The specification of what a run builds on, by role."""

OVERHEAD_MINUTES = 10
"""For the start of Python, the reading of models, and a file system that has a bad day."""

WITH_GPU = (
    "autoencoder",
    "pipeline",
    "classifier",
    "latents",
    "embeddings",
    "saliency",
    "generated",
    "unlearning",
    "samples",
    "predictions",
    "reference",
    "fid",
)
"""The stages whose jobs need a GPU."""

WITHOUT_GPU = ("conversion", "images", "slices")
"""The other stages whose jobs are submitted; the jobs of all others run beside Snakemake."""

MINUTES = 60
"""The run time of a job whose work does not grow with what a study asks for."""

MEMORY = {
    "conversion": 32_000,
    "latents": 16_000,
    "generated": 16_000,
    "embeddings": 8_000,
    "saliency": 32_000,
    "unlearning": 32_000,
    "samples": 32_000,
    "predictions": 16_000,
    "reference": 16_000,
    "fid": 16_000,
}
"""What a job of a stage asks for with the paper's models, in MB; of the others, `LITTLE_MEMORY`."""

LITTLE_MEMORY = 4_000

MARGIN = 2.0
"""Slurm ends a job that takes longer than it said, so it says twice what is expected."""


class Seconds(Section):
    """What a device takes for one image.

    Attributes:
        trained: seen in a training step, forwards, backwards and by the teacher.
        denoised: in one step of sampling, with and without its prompt.
        looked_at: read from its file and passed through an encoder or a classifier.
    """

    trained: PositiveFloat
    denoised: PositiveFloat
    looked_at: PositiveFloat


def minutes_of(
    specification: Specification, below: Below, seconds: Seconds | None, attempt: int, longest: int | None = None
) -> int:
    """The run time to ask for, in minutes.

    Args:
        specification: of the run, or, for `samples`, of which a job is one shard.
        below: gives the specification of what it builds on, by role.
        seconds: what the device takes; None if that is not known.
        attempt: 1 at first; an attempt that failed may have been short of time.
        longest: what a job may ask for at most. One that needs more is cut off, and goes on in the next attempt.
    """
    if seconds is not None and (count := STAGES.get(specification.stage)):
        first = math.ceil(OVERHEAD_MINUTES + MARGIN * count(specification, below, seconds) / 60)
    else:
        first = MINUTES
    minutes = first * attempt
    return minutes if longest is None else min(minutes, longest)


def memory_of(stage: str, attempt: int, most: int | None = None) -> int:
    """The memory to ask for, in MB, but no more than `most`. An attempt that failed may have been short of it."""
    asked = MEMORY.get(stage, LITTLE_MEMORY) * attempt
    return asked if most is None else min(asked, most)


def _slices(specification: Specification, _: Below, seconds: Seconds) -> float:
    return _pairs(read(SliceStage, specification), "forget", "retain") * seconds.looked_at


def _latents(specification: Specification, _: Below, seconds: Seconds) -> float:
    chosen = read(LatentsStage, specification)
    return len(chosen.styles) * len(chosen.objects) * len(chosen.images) * seconds.looked_at


def _saliency(_: Specification, below: Below, seconds: Seconds) -> float:
    return _pairs(read(SliceStage, below("slice")), "forget") * seconds.trained


def _unlearning(specification: Specification, below: Below, seconds: Seconds) -> float:
    expected = images_trained(specification, below) * seconds.trained
    settings = read(UnlearningStage, specification)
    images = settings.objective.unlearn.images
    if isinstance(images, SampledImages):  # stopped half of the way, on average
        pairs = settings.steps_on(_pairs(read(SliceStage, below("slice")), "forget")) * settings.pairs_a_step
        expected += pairs * (images.steps - 1) / 2 * seconds.denoised
    return expected


def _samples(specification: Specification, _: Below, seconds: Seconds) -> float:
    chosen = read(SamplesStage, specification)
    images = min(len(chosen.grid), specification.execution.batches_per_shard * chosen.sampling.batch)
    return images * chosen.sampling.scheduler.steps * seconds.denoised


def _predictions(_: Specification, below: Below, seconds: Seconds) -> float:
    return len(read(SamplesStage, below("samples")).grid) * seconds.looked_at


def _reference(specification: Specification, _: Below, seconds: Seconds) -> float:
    chosen = read(ReferenceStage, specification)
    return len(chosen.styles) * len(chosen.objects) * len(chosen.fid.reference_images) * seconds.looked_at


def _fid(specification: Specification, _: Below, seconds: Seconds) -> float:
    return len(read(FIDStage, specification).grid) * seconds.looked_at


STAGES = {
    "slices": _slices,
    "latents": _latents,
    "generated": _latents,
    "saliency": _saliency,
    "unlearning": _unlearning,
    "samples": _samples,
    "predictions": _predictions,
    "reference": _reference,
    "fid": _fid,
}
"""The stages whose work grows with what a study asks for, and the seconds that it takes."""


def images_trained(specification: Specification, below: Below) -> int:
    """How many images all steps of an unlearning run see together."""
    settings = read(UnlearningStage, specification)
    images_a_step = settings.pairs_a_step * (1 if settings.objective.retain is None else 2)
    return settings.steps_on(_pairs(read(SliceStage, below("slice")), "forget")) * images_a_step


def read(settings: type[Settings], specification: Specification) -> Settings:
    """The typed settings in a specification."""
    return settings.model_validate_json(json.dumps(specification.settings))


def _pairs(chosen: SliceStage, *sets: str) -> int:
    return sum(len(getattr(chosen, name)) for name in sets) * len(chosen.objects) * len(chosen.images)
