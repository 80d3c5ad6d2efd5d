"""Ranges of numbers that a type does not know: values that compute for hours and cannot be right.

The limits are far beyond those of any study that makes sense, so a value outside is a slip, such as 2e5 for 2e-5.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from corelib.settings.ddim import DDIMConfig
from corelib.settings.objective import SampledImages
from corelib.settings.unlearning import Length
from corelib.study.consistency import Inconsistency, numbers_in
from corelib.study.schema import DEFAULT, Method, Study

NOISE_LEVELS = 1_000
"""Number of timesteps of the noise schedule, of Stable Diffusion and of the miniature."""

MAX_STEPS = 10_000_000
"""Maximum number of training steps of a run; Stable Diffusion itself was trained for less than two million."""


@dataclass(frozen=True)
class Range:
    """The range of some leaves.

    Attributes:
        keys: pattern of the keys; `*` stands for any part of a key.
        low: smallest value.
        high: largest value.
        reason: why no other value makes sense, as a clause.
    """

    keys: str
    low: float
    high: float
    reason: str

    def covers(self, key: str) -> bool:
        """Whether a leaf belongs to the range."""
        return re.fullmatch(re.escape(self.keys).replace(r"\*", r"[^.]+"), key) is not None


_GUIDANCE = "beyond it, images are saturated noise"
_BATCH = "no device has the memory for more"
_PIXELS = "the paper's images have 512 pixels a side"
_RELATIVE = "it is relative to terms of about 1"

RANGES = (
    Range("sampling.scheduler.steps", 1, NOISE_LEVELS, "the noise schedule has no more timesteps"),
    Range("methods.*.objective.unlearn.images.steps", 1, NOISE_LEVELS, "the noise schedule has no more timesteps"),
    Range("sampling.guidance_scale", 0, 100, _GUIDANCE),
    Range("methods.*.objective.unlearn.images.guidance_scale", -100, 100, _GUIDANCE),
    Range("methods.*.saliency.guidance_scale", -100, 100, _GUIDANCE),
    Range("methods.*.objective.*.weight", -1e6, 1e6, _RELATIVE),
    Range("methods.*.objective.unlearn.weight.scale", -1e6, 1e6, _RELATIVE),
    Range("methods.*.objective.unlearn.weight.gamma", 0, 1e6, "it is a signal-to-noise ratio, usually 5"),
    Range("methods.*.objective.unlearn.target.eta", -100, 100, "it is a guidance scale"),
    Range("methods.*.objective.*.target.low", -100, 100, "the noise has a standard deviation of 1"),
    Range("methods.*.objective.*.target.high", -100, 100, "the noise has a standard deviation of 1"),
    Range("baselines.*.edit.erase_weight", 0, 1e6, _RELATIVE),
    Range("baselines.*.edit.preserve_weight", 0, 1e6, _RELATIVE),
    Range("baselines.*.edit.ridge", 0, 1e6, _RELATIVE),
    Range("baselines.*.edit.adversarial.count", 1, 1_000, "each round changes the weights less than the one before"),
    Range("baselines.*.edit.adversarial.ridge", 0, 1e6, _RELATIVE),
    Range("methods.*.batch", 1, 10_000, _BATCH),
    Range("encoding.batch", 1, 10_000, _BATCH),
    Range("sampling.batch", 1, 10_000, _BATCH),
    Range("sampling.decoding.batch", 1, 10_000, _BATCH),
    Range("classification.batch", 1, 10_000, _BATCH),
    Range("fid.batch", 1, 10_000, _BATCH),
    Range("world.*.training.batch", 1, 10_000, _BATCH),
    Range("training.optimizer.epsilon", 0, 1, "Adam adds it to the size of a gradient"),
    Range("training.optimizer.weight_decay", 0, 1, "beyond it, decay outweighs every gradient"),
    Range("training.scale.min_steps", 1, MAX_STEPS, "no model of this kind is trained longer"),
    Range("world.*.training.steps", 1, MAX_STEPS, "no model of this kind is trained longer"),
    Range("world.*.training.learning_rate", 0, 0.999, "Adam changes each weight by about the learning rate in a step"),
    Range("world.resolution", 8, 4096, _PIXELS),
    Range("encoding.resolution", 8, 4096, _PIXELS),
    Range("sampling.resolution", 8, 4096, _PIXELS),
    Range("world.assets.classifier_resolution", 8, 4096, _PIXELS),
    Range("figures.*.pixels", 8, 4096, _PIXELS),
    Range("world.images_per_cell", 1, 100_000, "the paper's world has 20"),
    Range("world.autoencoder.kl_weight", 0, 1000, "it is relative to the squared error of an image"),
    Range("world.autoencoder.latent_channels", 1, 1000, "Stable Diffusion has 4"),
    Range("world.*.channels.*", 1, 10_000, "Stable Diffusion has at most 1,280"),
    Range("world.text_encoder.width", 1, 10_000, "Stable Diffusion has 768"),
    Range("world.text_encoder.layers", 1, 200, "Stable Diffusion has 12"),
    Range("world.denoiser.layers_per_block", 1, 200, "Stable Diffusion has 2"),
    Range("probes.*.steps.*", 1, MAX_STEPS, "no model of this kind is trained longer"),
    Range("probes.*.learning_rate", 0, 10, "Adam changes each number by about the learning rate in a step"),
    Range("probes.*.tokens", 1, 70, "a prompt of Stable Diffusion has at most 77 tokens"),
    Range("probes.*.batch", 1, 10_000, _BATCH),
    Range("threads.*", 1, 1024, "no machine has more cores"),
)  # fmt: skip


def find_beyond_range(study: Study) -> Iterator[Inconsistency]:
    """Every number of a consistent study that cannot be right."""
    yield from find_impossible_numbers(study)
    for name, method in study.methods.items():
        yield from _check_lengths(study, name, method)


def find_impossible_numbers(study: Study) -> Iterator[Inconsistency]:
    """Every number that cannot be right whatever the names in the study are, which may be unknown."""
    for key, value in numbers_in(study.model_dump()):
        for limits in RANGES:
            if limits.covers(key) and not limits.low <= value <= limits.high:
                expected = f"a number from {limits.low:,g} to {limits.high:,g}: {limits.reason}"
                yield Inconsistency(key, value, expected)
    yield from _check_timesteps("sampling.scheduler", study.sampling.scheduler, study.sampling.scheduler.steps)
    if beyond := [timestep for timestep in study.distances.timesteps if timestep >= NOISE_LEVELS]:
        expected = f"timesteps below {NOISE_LEVELS:,}, the number of those of the noise schedule"
        yield Inconsistency("distances.timesteps", beyond[0], expected)
    for name, method in study.methods.items():
        yield from _check_method(study, name, method)


def _check_method(study: Study, name: str, method: Method) -> Iterator[Inconsistency]:
    key, scale = f"methods.{name}", study.training.scale
    if 1 <= method.learning_rate * scale.learning_rate < math.inf:
        yield Inconsistency(
            f"{key}.learning_rate",
            method.learning_rate,
            f"a number for which the scaled learning rate is below 1 (training.scale.learning_rate is "
            f"{scale.learning_rate:g}): Adam changes each weight by about the learning rate in a step",
        )
    unlearn = method.objective.unlearn
    if isinstance(unlearn.images, SampledImages):
        yield from _check_timesteps(f"{key}.objective.unlearn.images", unlearn.images, unlearn.images.steps)
    weight = unlearn.weight if isinstance(unlearn.weight, float) else unlearn.weight.scale
    if weight == 0 and method.objective.retain is None:
        yield Inconsistency(f"{key}.objective.unlearn.weight", 0.0, "another number, since there is no retain term")


def _check_lengths(study: Study, name: str, method: Method) -> Iterator[Inconsistency]:
    key = f"methods.{name}"
    for task in study.tasks:
        length = study.length_of(name, task)
        if length is not None and (steps := _steps(study, method, task, length)) > MAX_STEPS:
            leaf = "steps" if length.steps is not None else "epochs"
            yield Inconsistency(
                f"{key}.length.{task if task in method.length else DEFAULT}.{leaf}",
                length.steps if length.steps is not None else length.epochs,
                f"a length of at most {MAX_STEPS:,} training steps; this one has {steps:,.0f}",
            )


def _steps(study: Study, method: Method, task: str, unscaled: Length) -> float:
    """Number of training steps of a method on a task."""
    length = unscaled.times(study.training.scale.length)
    if length.steps is not None:
        return length.steps
    assert length.epochs is not None
    definition = study.tasks[task]
    images = len(definition.forget) * len(study.objects_of_training(definition)) * len(study.training_images)
    return length.epochs * images / method.batch


def _check_timesteps(key: str, scheduler: DDIMConfig, steps: int) -> Iterator[Inconsistency]:
    """A first timestep beyond the noise schedule: `leading` adds the offset to equally spaced timesteps."""
    first = (steps - 1) * (NOISE_LEVELS // steps) + scheduler.steps_offset if steps <= NOISE_LEVELS else 0
    if scheduler.timestep_spacing == "leading" and first >= NOISE_LEVELS:
        yield Inconsistency(
            f"{key}.steps_offset",
            scheduler.steps_offset,
            f"a smaller offset or fewer steps ({steps}): sampling would begin at timestep {first:,}, and the last "
            f"of the noise schedule is {NOISE_LEVELS - 1}",
        )
