"""The work of a run in device-independent units, and the FLOP of each unit.

The seconds of each unit are in `corelib.costs.device_time`.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Protocol, TypeVar

from corelib.runs.run import Run
from corelib.runs.specification import Execution
from corelib.sampling.grid import record_path, shard_manifests, split_into_batches
from corelib.settings.data import EmbeddingsStage, LatentsStage, SliceStage
from corelib.settings.distances import DistancesStage
from corelib.settings.edits import EditStage
from corelib.settings.evaluation import FIDStage, PredictionsStage, ReferenceStage
from corelib.settings.miniature import AutoencoderStage, ClassifierStage, PipelineStage, RenderingStage
from corelib.settings.objective import SampledImages
from corelib.settings.probes import PromptLearning, RelearningStage, ResampledStage
from corelib.settings.sampling import SamplesStage
from corelib.settings.section import Section
from corelib.settings.unlearning import SaliencyStage, UnlearningStage
from corelib.unlearning.noise_predictions import required_predictions

Settings = TypeVar("Settings", bound=Section)

BYTES_PER_FLOAT = 4
"""Size of a value in bytes."""


class Countable(Protocol):
    """A run whose work can be counted: a planned run, or one known by its specification alone."""

    @property
    def settings(self) -> Section:
        """The leaves that its stage reads."""

    @property
    def inputs(self) -> Mapping[str, Countable]:
        """The runs that it builds on, by role."""

    @property
    def execution(self) -> Execution:
        """Settings of the division of its work into jobs."""


@dataclass(frozen=True)
class Workload:
    """The work of some jobs in device-independent units, and the disk space of their results.

    Passes, decodes and encodes are counted in latents or images of the resolution at which costs hold
    (`NetworkSizes.resolution`).

    Attributes:
        steps: unlearning steps.
        images: sampled images.
        world_steps: training steps of the miniature's own networks.
        train_passes: latents in forward and backward passes of the U-Net.
        forward_passes: latents in forward passes of the U-Net without a backward pass.
        decodes, encodes: images that the autoencoder decodes or encodes.
        classifications: images in forward passes of a classifier.
        feature_extractions: images in forward passes of the feature extractor of FID.
        reads: images that are only read.
        disk: size of the results in bytes.
    """

    steps: int = 0
    images: int = 0
    world_steps: int = 0
    train_passes: float = 0
    forward_passes: float = 0
    decodes: float = 0
    encodes: float = 0
    classifications: int = 0
    feature_extractions: int = 0
    reads: int = 0
    disk: int = 0

    def __add__(self, other: Workload) -> Workload:
        both = {field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)}
        return Workload(**both)


@dataclass(frozen=True)
class Costs:
    """The cost of each unit of a `Workload`, in FLOP or in seconds."""

    train_passes: float
    forward_passes: float
    decodes: float
    encodes: float
    classifications: float
    feature_extractions: float
    reads: float = 0

    def of(self, work: Workload) -> float:
        """The total cost of a workload."""
        return float(sum(getattr(self, field.name) * getattr(work, field.name) for field in fields(self)))


FORWARD_FLOP = 0.8033e12

FLOP_COSTS = Costs(
    train_passes=2.110 * FORWARD_FLOP,
    forward_passes=FORWARD_FLOP,
    decodes=2.515e12,
    encodes=1.117e12,
    classifications=0.1231e12,
    feature_extractions=0.0114e12,
)
"""FLOP of the paper's networks at 512 pixels, counted operation by operation (tests/unit/costs/test_forecast.py)."""


@dataclass(frozen=True)
class NetworkSizes:
    """The sizes of a world's networks on which work and disk space depend.

    Attributes:
        resolution: resolution at which the costs hold, in pixels; costs grow with the area. None if images of all
            sizes count alike.
        shrink: the factor by which the autoencoder divides the resolution.
        trained: number of weights of the cross-attention.
        prompt: number of values in the embedding of a prompt.
        features: number of values that FID keeps per image.
    """

    resolution: int | None
    shrink: int
    trained: int
    prompt: int
    features: int

    def area(self, side: int) -> float:
        """The area of an image of `side` x `side` pixels, in units of an image of `resolution`."""
        return 1.0 if self.resolution is None else (side / self.resolution) ** 2


STABLE_DIFFUSION = NetworkSizes(resolution=512, shrink=8, trained=43_962_560, prompt=77 * 768, features=2048)

NETWORKS = {
    "unlearn_canvas": STABLE_DIFFUSION,
    "image_folder": STABLE_DIFFUSION,
    "miniature": NetworkSizes(resolution=32, shrink=4, trained=155_664, prompt=12 * 64, features=192),
}
"""The sizes for each kind of world; the miniature's are those of the study `mini`. A base model of the user's counts as
Stable Diffusion v1.5, whatever its size."""


# Counting


def workload_of(run: Countable, networks: NetworkSizes) -> Workload:
    """The work of a whole run; zero for stages that compute little, such as counting and tables."""
    return _count(run.settings, run, networks)


def workload_of_job(run: Countable, networks: NetworkSizes) -> Workload:
    """The work of a run's longest job: the whole run, or for samples one full shard."""
    if isinstance(run.settings, SamplesStage):
        batches = min(len(split_into_batches(run.settings)), run.execution.batches_per_shard)
        return workload_of_batches(run.settings, range(batches), networks)
    return workload_of(run, networks)


@functools.singledispatch
def _count(settings: Section, run: Countable, networks: NetworkSizes) -> Workload:
    return Workload()


@_count.register
def _(settings: RenderingStage, run: Countable, networks: NetworkSizes) -> Workload:
    count = len(settings.styles) * len(settings.objects) * settings.images_per_cell
    return Workload(disk=count * _jpeg(settings.resolution))


@_count.register
def _(settings: AutoencoderStage, run: Countable, networks: NetworkSizes) -> Workload:
    return Workload(world_steps=settings.autoencoder.training.steps)


@_count.register
def _(settings: PipelineStage, run: Countable, networks: NetworkSizes) -> Workload:
    return Workload(world_steps=settings.denoiser.training.steps)


@_count.register
def _(settings: ClassifierStage, run: Countable, networks: NetworkSizes) -> Workload:
    return Workload(world_steps=settings.classifier.training.steps)


@_count.register
def _(settings: SliceStage, run: Countable, networks: NetworkSizes) -> Workload:
    return Workload(reads=_pairs(settings, settings.forget + settings.retain))


@_count.register
def _(settings: LatentsStage, run: Countable, networks: NetworkSizes) -> Workload:
    count, side = len(settings.styles) * len(settings.objects) * len(settings.images), settings.encoding.resolution
    moments = 2 * 4 * (side // networks.shrink) ** 2
    return Workload(encodes=count * networks.area(side), disk=count * moments * BYTES_PER_FLOAT)


@_count.register
def _(settings: EmbeddingsStage, run: Countable, networks: NetworkSizes) -> Workload:
    return Workload(disk=len(settings.prompts) * networks.prompt * BYTES_PER_FLOAT)


@_count.register
def _(settings: SaliencyStage, run: Countable, networks: NetworkSizes) -> Workload:
    passes = _passes_per_prediction(settings.saliency.guidance_scale) * _forget_pairs(run)
    return Workload(train_passes=passes * _area_of_latents(run, networks), disk=networks.trained)


@_count.register
def _(settings: UnlearningStage, run: Countable, networks: NetworkSizes) -> Workload:
    steps = settings.num_steps(_forget_pairs(run))
    passes = Counter(question.predictor for question in required_predictions(settings.objective))
    train, forward = passes["student"], float(passes["detached student"] + passes["teacher"])
    images = settings.objective.unlearn.images
    if isinstance(images, SampledImages):
        forward += 2 * (images.steps - 1) / 2  # two passes per guided step; half of the steps on average
    pairs = steps * settings.pairs_per_step * _area_of_latents(run, networks)
    disk = networks.trained * BYTES_PER_FLOAT
    return Workload(steps=steps, train_passes=pairs * train, forward_passes=pairs * forward, disk=disk)


@_count.register
def _(settings: EditStage, run: Countable, networks: NetworkSizes) -> Workload:
    return Workload(disk=networks.trained // 2 * BYTES_PER_FLOAT)  # about half of the weights are keys and values


@_count.register
def _(settings: SamplesStage, run: Countable, networks: NetworkSizes) -> Workload:
    return workload_of_batches(settings, range(len(split_into_batches(settings))), networks)


def workload_of_batches(settings: SamplesStage, batches: Sequence[int], networks: NetworkSizes) -> Workload:
    """The work of some batches of a run; the last batch is padded, and its padding is sampled too."""
    all_batches, side = split_into_batches(settings), settings.sampling.resolution
    images = sum(len(all_batches[number]) for number in batches)
    computed = len(batches) * settings.sampling.batch * networks.area(side)
    passes = _passes_per_prediction(settings.sampling.guidance_scale) * settings.sampling.scheduler.steps
    return Workload(images=images, forward_passes=computed * passes, decodes=computed, disk=images * _jpeg(side))


@_count.register
def _(settings: RelearningStage, run: Countable, networks: NetworkSizes) -> Workload:
    passes = settings.steps * settings.batch * _area_of_latents(run, networks)
    return Workload(steps=settings.steps, train_passes=passes, disk=networks.trained * BYTES_PER_FLOAT)


@_count.register
def _(settings: PromptLearning, run: Countable, networks: NetworkSizes) -> Workload:
    steps = settings.steps * len({style for style, _ in settings.concepts})
    passes = steps * settings.batch * _area_of_latents(run, networks)
    disk = (1 + len(settings.concepts)) * networks.prompt * BYTES_PER_FLOAT
    return Workload(steps=steps, train_passes=passes, disk=disk)


@_count.register
def _(settings: ResampledStage, run: Countable, networks: NetworkSizes) -> Workload:
    whole = _count(settings.samples, run, networks)
    return replace(whole, forward_passes=whole.forward_passes * settings.level)


@_count.register
def _(settings: PredictionsStage, run: Countable, networks: NetworkSizes) -> Workload:
    images = run.inputs["samples"].settings
    samples = images.samples if isinstance(images, ResampledStage) else images
    assert isinstance(samples, SamplesStage)
    return Workload(classifications=2 * len(samples.grid))


@_count.register
def _(settings: ReferenceStage, run: Countable, networks: NetworkSizes) -> Workload:
    count = len(settings.styles) * len(settings.objects) * len(settings.fid.reference_images)
    return Workload(feature_extractions=count, disk=count * networks.features * 2 * BYTES_PER_FLOAT)


@_count.register
def _(settings: FIDStage, run: Countable, networks: NetworkSizes) -> Workload:
    return Workload(feature_extractions=len(settings.grid))


@_count.register
def _(settings: DistancesStage, run: Countable, networks: NetworkSizes) -> Workload:
    images = (len(settings.forget) + len(settings.retain)) * len(settings.objects)
    area = networks.area(_settings_of(LatentsStage, run.inputs["latents"]).encoding.resolution)
    passes = 2 * images * len(settings.distances.timesteps) * area
    return Workload(forward_passes=passes, feature_extractions=2 * len(settings.grid))


def remaining_shards(run: Run, settings: SamplesStage, rebuilt: Set[Path]) -> list[list[int]]:
    """The batches that remain to be sampled in each shard that is missing or rebuilt.

    All batches of a rebuilt shard count, although its job samples only those that are missing or damaged.

    Args:
        run: a run of samples.
        settings: its settings.
        rebuilt: the paths of the manifests of the shards that are rebuilt.
    """
    num_batches = len(split_into_batches(settings))
    manifests = [run.folder / name for name in shard_manifests(settings, run.execution.batches_per_shard)]
    remaining = []
    for shard, manifest in enumerate(manifests):
        batches = range(shard, num_batches, len(manifests))
        if manifest in rebuilt:
            remaining.append(list(batches))
        elif not manifest.exists():
            remaining.append([number for number in batches if not (run.folder / record_path(number)).exists()])
    return remaining


def _jpeg(side: int) -> int:
    """The approximate size of a JPEG of quality 75, in bytes."""
    return 500 + side * side // 4


def _passes_per_prediction(guidance_scale: float) -> int:
    """The number of U-Net passes of a prediction; guidance needs two."""
    return 1 if guidance_scale == 1 else 2


def _forget_pairs(run: Countable) -> int:
    settings = _settings_of(SliceStage, run.inputs["slice"])
    return _pairs(settings, settings.forget)


def _pairs(settings: SliceStage, styles: Sequence[str]) -> int:
    return len(styles) * len(settings.objects) * len(settings.images)


def _area_of_latents(run: Countable, networks: NetworkSizes) -> float:
    return networks.area(_settings_of(LatentsStage, run.inputs["latents"]).encoding.resolution)


def _settings_of(kind: type[Settings], run: Countable) -> Settings:
    assert isinstance(run.settings, kind)
    return run.settings
