"""How much work a run is, in units that no device decides, and what one of each costs.

The costs are those of Stable Diffusion v1.5 in the paper's world, and of the shipped networks in the miniature.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from corelib.runs.layout import SHARDS
from corelib.runs.run import Run
from corelib.sampling.grid import batches_of, record_path
from corelib.settings.data import EmbeddingsStage, LatentsStage, SliceStage
from corelib.settings.evaluation import FIDStage, ReferenceStage
from corelib.settings.miniature import AutoencoderStage, ClassifierStage, PipelineStage, Rendering
from corelib.settings.sampling import SamplesStage
from corelib.settings.unlearning import SaliencyStage, SampledImages, UnlearningStage
from corelib.unlearning.noise_predictions import questions_of


@dataclass(frozen=True)
class Amount:
    """The work of some jobs in units that no device decides, and the bytes that they leave behind.

    Attributes:
        steps: of unlearning.
        images: sampled.
        world_steps: of training the miniature's own networks.
        learnt: latents that pass through the U-Net forwards and backwards; as many as there would be of the
            resolution at which costs hold, and so all that follow but the last two.
        predicted: latents that pass through it forwards alone.
        decoded, encoded: images that pass through the autoencoder.
        classified: images that pass through a classifier.
        described: images that pass through the feature extractor of FID.
        disk: bytes.
    """

    steps: int = 0
    images: int = 0
    world_steps: int = 0
    learnt: float = 0
    predicted: float = 0
    decoded: float = 0
    encoded: float = 0
    classified: int = 0
    described: int = 0
    disk: int = 0

    def __add__(self, other: Amount) -> Amount:
        both = {field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)}
        return Amount(**both)


@dataclass(frozen=True)
class Costs:
    """What one of each unit of an `Amount` costs: FLOP, or seconds."""

    learnt: float
    predicted: float
    decoded: float
    encoded: float
    classified: float
    described: float

    def of(self, amount: Amount) -> float:
        """The sum over an amount."""
        return float(sum(getattr(self, field.name) * getattr(amount, field.name) for field in fields(self)))


FORWARD = 0.8033e12

FLOP = Costs(
    learnt=2.110 * FORWARD,
    predicted=FORWARD,
    decoded=2.515e12,
    encoded=1.117e12,
    classified=0.1231e12,
    described=0.0114e12,
)
"""Of the paper's networks at 512 pixels, counted operation by operation (tests/unit/costs/test_forecast.py)."""


@dataclass(frozen=True)
class Networks:
    """What of a world's networks decides how much there is to compute and to keep.

    Attributes:
        resolution: in pixels, at which the costs hold; they grow with the area.
        shrink: of the autoencoder.
        trained: weights of the cross-attention.
        prompt: numbers in the embedding of a prompt.
        features: numbers that FID keeps of an image.
    """

    resolution: int
    shrink: int
    trained: int
    prompt: int
    features: int

    def area(self, side: int) -> float:
        """Of an image, in images of `resolution`."""
        return (side / self.resolution) ** 2


NETWORKS = {
    "unlearn_canvas": Networks(resolution=512, shrink=8, trained=43_962_560, prompt=77 * 768, features=2048),
    "miniature": Networks(resolution=32, shrink=4, trained=155_664, prompt=12 * 64, features=192),
}
"""By the kind of world; the miniature's are those of the study `mini`."""


@dataclass(frozen=True)
class GPU:
    """A device to be planned with.

    Attributes:
        name: as its maker calls it.
        peak: FLOP a second in bf16 without sparsity, by its data sheet.
        share: of the peak that a good implementation reaches.
        source: of that share.
    """

    name: str
    peak: float
    share: float
    source: str


GPUS = (
    GPU("A100", 312e12, 0.385, "best published for this U-Net: 1.34 s for a guided image of 100 steps"),
    GPU("H100", 989e12, 0.385, "the A100's, not measured"),
)

CORE_SECONDS = Costs(
    learnt=5.1e-3, predicted=1.45e-3, decoded=1.0e-3, encoded=0.8e-3, classified=0.3e-3, described=1.0e-3
)

JOB_SECONDS = 3.4
"""Of the study mini on one core of an AMD EPYC server, from the provenance records of CORE on Forget06; and the start
of a job: Python, torch, diffusers."""


def seconds_of_a_core(amount: Amount, jobs: int) -> float:
    """What an amount of work in so many jobs takes on one CPU core."""
    return CORE_SECONDS.of(amount) + JOB_SECONDS * jobs


# How much work a run is


def _rendered(run: Run, _: Networks) -> Amount:
    chosen = _read(Rendering, run)
    count = len(chosen.styles) * len(chosen.objects) * chosen.images_per_cell
    return Amount(disk=count * _jpeg(chosen.resolution))


def _autoencoder(run: Run, _: Networks) -> Amount:
    return Amount(world_steps=_read(AutoencoderStage, run).autoencoder.training.steps)


def _pipeline(run: Run, _: Networks) -> Amount:
    return Amount(world_steps=_read(PipelineStage, run).denoiser.training.steps)


def _classifier(run: Run, _: Networks) -> Amount:
    return Amount(world_steps=_read(ClassifierStage, run).classifier.training.steps)


def _latents(run: Run, networks: Networks) -> Amount:
    chosen = _read(LatentsStage, run)
    count, side = len(chosen.styles) * len(chosen.objects) * len(chosen.images), chosen.encoding.resolution
    moments = 2 * 4 * (side // networks.shrink) ** 2
    return Amount(encoded=count * networks.area(side), disk=count * moments * FLOAT)


def _embeddings(run: Run, networks: Networks) -> Amount:
    chosen = _read(EmbeddingsStage, run)
    return Amount(disk=len(chosen.prompts) * networks.prompt * FLOAT)


def _saliency(run: Run, networks: Networks) -> Amount:
    halves = _halves(_read(SaliencyStage, run).saliency.guidance_scale)
    return Amount(learnt=halves * _forget_pairs(run) * _trained_area(run, networks), disk=networks.trained)


def _unlearning(run: Run, networks: Networks) -> Amount:
    chosen = _read(UnlearningStage, run)
    steps = chosen.steps_on(_forget_pairs(run))
    asked = Counter(question.predictor for question in questions_of(chosen.objective))
    learnt, predicted = asked["student"], float(asked["detached student"] + asked["teacher"])
    images = chosen.objective.unlearn.images
    if isinstance(images, SampledImages):
        predicted += 2 * (images.steps - 1) / 2  # both halves of a guided step; half of the way, on average
    pairs = steps * chosen.pairs_a_step * _trained_area(run, networks)
    return Amount(steps=steps, learnt=pairs * learnt, predicted=pairs * predicted, disk=networks.trained * FLOAT)


def sampled(chosen: SamplesStage, batches: Sequence[int], networks: Networks) -> Amount:
    """Of some of a run's batches; the last one is padded, and its padding is sampled too."""
    cut, side = batches_of(chosen), chosen.sampling.resolution
    images = sum(len(cut[number]) for number in batches)
    computed = len(batches) * chosen.sampling.batch * networks.area(side)
    passes = _halves(chosen.sampling.guidance_scale) * chosen.sampling.scheduler.steps
    return Amount(images=images, predicted=computed * passes, decoded=computed, disk=images * _jpeg(side))


def shards_left(run: Run, chosen: SamplesStage, remade: Set[Path]) -> list[list[int]]:
    """The batches that each shard still has to sample which is missing, or among those that are made again.

    A shard that is made again counts whole; its job samples only what is not there as it should be.
    """
    batches = len(batches_of(chosen))
    count = math.ceil(batches / run.execution.batches_per_shard)
    left = []
    for shard in range(count):
        manifest = run.folder / SHARDS / f"{shard:04d}-of-{count:04d}.json"
        own = range(shard, batches, count)
        if manifest in remade:
            left.append(list(own))
        elif not manifest.exists():
            left.append([number for number in own if not (run.folder / record_path(number)).exists()])
    return left


def _predictions(run: Run, _: Networks) -> Amount:
    return Amount(classified=2 * len(_read(SamplesStage, run.inputs["samples"]).grid))


def _reference(run: Run, networks: Networks) -> Amount:
    chosen = _read(ReferenceStage, run)
    count = len(chosen.styles) * len(chosen.objects) * len(chosen.fid.reference_images)
    return Amount(described=count, disk=count * networks.features * 2 * FLOAT)


def _fid(run: Run, _: Networks) -> Amount:
    return Amount(described=len(_read(FIDStage, run).grid))


AMOUNTS: Mapping[str, Callable[[Run, Networks], Amount]] = {
    "images": _rendered,
    "autoencoder": _autoencoder,
    "pipeline": _pipeline,
    "classifier": _classifier,
    "latents": _latents,
    "generated": _latents,
    "embeddings": _embeddings,
    "saliency": _saliency,
    "unlearning": _unlearning,
    "predictions": _predictions,
    "reference": _reference,
    "fid": _fid,
}
"""The stages that compute something worth counting; samples are counted by their shards."""

FLOAT = 4
"""Bytes."""


def _jpeg(side: int) -> int:
    """Bytes of an image of quality 75, about."""
    return 500 + side * side // 4


def _halves(guidance_scale: float) -> int:
    """How often a guided prediction asks the model."""
    return 1 if guidance_scale == 1 else 2


def _forget_pairs(run: Run) -> int:
    chosen = _read(SliceStage, run.inputs["slice"])
    return len(chosen.forget) * len(chosen.objects) * len(chosen.images)


def _trained_area(run: Run, networks: Networks) -> float:
    return networks.area(_read(LatentsStage, run.inputs["latents"]).encoding.resolution)


def _read(kind: Any, run: Run) -> Any:
    assert isinstance(run.settings, kind)
    return run.settings
