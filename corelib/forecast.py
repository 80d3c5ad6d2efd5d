"""What targets will cost, before anything runs: jobs, steps, images, FLOP, hours, disk, and the longest chain.

The counts follow from the plan and from what lies on the disk, as Snakemake's own would; what is built is subtracted.
The costs are those of Stable Diffusion v1.5 in the paper's world, and of the shipped networks in the miniature.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from corelib.addresses import Run
from corelib.errors import ConfigurationError
from corelib.gathering import SHARDS, batches_of, record_path
from corelib.questions import questions_of
from corelib.settings.evaluation import FIDStage, ReferenceStage
from corelib.settings.miniature import AutoencoderStage, ClassifierStage, PipelineStage, Rendering
from corelib.settings.sampling import SamplesStage
from corelib.settings.slicing import EmbeddingsStage, LatentsStage, SliceStage
from corelib.settings.unlearning import SaliencyStage, SampledImages, UnlearningStage
from corelib.studies import PAPER
from corelib.targets import RESULTS, is_current, plan_of, product_at, study_at

JOBS = {
    "assets": "adopt_assets",
    "conversion": "convert_compvis",
    "images": "render_images",
    "pretrained": "adopt_pretrained",
    "autoencoder": "train_autoencoder",
    "pipeline": "train_pipeline",
    "classifier": "train_classifier",
    "slices": "slice_images",
    "latents": "encode_images",
    "embeddings": "embed_prompts",
    "saliency": "find_salient_weights",
    "generated": "encode_generated",
    "unlearning": "unlearn",
    "samples": "gather_samples",
    "predictions": "classify_images",
    "reference": "summarize_reference",
    "fid": "measure_fid",
    "cells": "count_cells",
    "gate": "check_gate",
    "tables": "tabulate",
    "figures": "draw",
    "gates": "report_gate",
}
"""The rule of each stage, in the order in which they are shown; samples have their shards besides."""

SHARD = "sample_shard"


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
"""Of the paper's networks at 512 pixels, counted operation by operation (tests/test_forecast.py)."""


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


@dataclass(frozen=True)
class Item:
    """A run that has to be made, and of its jobs those that are left.

    Attributes:
        run: which.
        jobs: how many there are of each rule.
        amount: their work together.
        longest_job: the work of the longest of them; the jobs of a run do not wait for each other.
    """

    run: Run
    jobs: Mapping[str, int]
    amount: Amount
    longest_job: Amount


@dataclass(frozen=True)
class Forecast:
    """What has to be done for some products.

    Attributes:
        asked: the products, by their path.
        runs: every run that they need, by name, products included.
        items: those that have to be made, by name.
        shared: how many runs serve more than one row.
    """

    asked: Mapping[str, Run]
    runs: Mapping[str, Run]
    items: Mapping[str, Item]
    shared: int

    @property
    def jobs(self) -> Counter[str]:
        """How many jobs of each rule Snakemake would run."""
        return sum((Counter(item.jobs) for item in self.items.values()), Counter[str]())

    @property
    def amount(self) -> Amount:
        """All work together."""
        return sum((item.amount for item in self.items.values()), Amount())

    def longest_chain(self, costs: Costs) -> tuple[float, list[Run]]:
        """The runs that have to follow each other and take longest, were there a device for every job."""
        found: dict[str, tuple[float, list[Run]]] = {}

        def chain(run: Run) -> tuple[float, list[Run]]:
            if run.name not in found:
                before = max(map(chain, (*run.inputs.values(), *run.after.values())), default=(0.0, []), key=_length)
                item = self.items.get(run.name)
                own = costs.of(item.longest_job) if item else 0.0
                found[run.name] = before[0] + own, before[1] + ([run] if item else [])
            return found[run.name]

        return max(map(chain, self.asked.values()), default=(0.0, []), key=_length)


def _length(chain: tuple[float, list[Run]]) -> float:
    return chain[0]


def forecast_of(targets: Sequence[str], configuration: Path) -> tuple[Forecast, str]:
    """What the targets that one would give to Snakemake need, and the kind of their world.

    Raises `ConfigurationError` for a target that no study has, and for targets of two worlds.
    """
    plan = functools.cache(functools.partial(plan_of, configuration=configuration))
    asked: dict[str, Run] = {}
    kinds: dict[str, str] = {}
    for target in targets:
        if target == "all":
            place, names = RESULTS, list(plan(PAPER).products())
        else:
            place, names = Path(target).parent, [Path(target).name.split(".")[0]]
        if place != RESULTS and place.parent != RESULTS:
            raise ConfigurationError(f"{target}: expected a table or figure, such as {RESULTS}/table1.csv, or all.")
        for name in names:
            asked[str(place / name)] = product_at(place, name, lambda study: plan(study).products())
            kinds[plan(study_at(place)).study.world.kind] = target
    if len(kinds) > 1:
        raise ConfigurationError(f"{' and '.join(kinds.values())}: of two worlds, expected targets of one at a time.")
    (kind,) = kinds
    found = forecast(asked, NETWORKS[kind], lambda path, run: is_current(Path(f"{path}.json"), run))
    return found, kind


def forecast(asked: Mapping[str, Run], networks: Networks, is_current: Callable[[str, Run], bool]) -> Forecast:
    """Look at the plan and the disk.

    Args:
        asked: the products, by the path without its ending.
        networks: of their world.
        is_current: whether a product lies at its path and is what its run would make.
    """
    runs: dict[str, Run] = {}
    rows: Counter[str] = Counter()
    missing: dict[str, Run] = {}
    for path, product in asked.items():
        runs |= product.with_all_inputs()
        for row in product.inputs.values():
            rows.update(row.with_all_inputs().keys())
        if not is_current(path, product):
            missing |= {product.name: product} | _missing_below(product)
    items = {name: _item(run, networks) for name, run in missing.items()}
    items |= {name: _visit(run) for name, run in runs.items() if name not in missing and _is_above(run, missing)}
    return Forecast(asked, runs, items, shared=sum(count > 1 for count in rows.values()))


def _missing_below(product: Run) -> dict[str, Run]:
    """What an outdated product waits for, directly or not: a run that is complete needs nothing any more."""
    found: dict[str, Run] = {}
    queue = [*product.inputs.values(), *product.after.values()]
    while queue:
        run = queue.pop()
        if run.name not in found and not run.manifest.exists():
            found[run.name] = run
            queue.extend([*run.inputs.values(), *run.after.values()])
    return found


def _is_above(run: Run, missing: Mapping[str, Run]) -> bool:
    return not missing.keys().isdisjoint(run.with_all_inputs())


def _visit(run: Run) -> Item:
    """A run that is complete, and built on one that is made again: its jobs see that, and end."""
    jobs = {JOBS[run.stage]: 1}
    if isinstance(run.settings, SamplesStage):
        jobs[SHARD] = math.ceil(len(batches_of(run.settings)) / run.execution["batches_per_shard"])
    return Item(run, jobs, Amount(), Amount())


def _item(run: Run, networks: Networks) -> Item:
    if isinstance(run.settings, SamplesStage):
        shards = [_sampled(run.settings, batches, networks) for batches in _shards_left(run, run.settings)]
        longest = max(shards, default=Amount(), key=lambda amount: amount.images)
        jobs = {SHARD: len(shards), JOBS["samples"]: 1} if shards else {JOBS["samples"]: 1}
        return Item(run, jobs, sum(shards, Amount()), longest)
    amount = AMOUNTS[run.stage](run, networks) if run.stage in AMOUNTS else Amount()
    return Item(run, {JOBS[run.stage]: 1}, amount, amount)


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
    return Amount(disk=len(chosen.styles) * len(chosen.objects) * networks.prompt * FLOAT)


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


def _sampled(chosen: SamplesStage, batches: Sequence[int], networks: Networks) -> Amount:
    """Of some of a run's batches; the last one is padded, and its padding is sampled too."""
    cut, side = batches_of(chosen), chosen.sampling.resolution
    images = sum(len(cut[number]) for number in batches)
    computed = len(batches) * chosen.sampling.batch * networks.area(side)
    passes = _halves(chosen.sampling.guidance_scale) * chosen.sampling.scheduler.steps
    return Amount(images=images, predicted=computed * passes, decoded=computed, disk=images * _jpeg(side))


def _shards_left(run: Run, chosen: SamplesStage) -> list[list[int]]:
    """The batches that each missing shard still has to sample."""
    batches = len(batches_of(chosen))
    count = math.ceil(batches / run.execution["batches_per_shard"])
    return [
        [n for n in range(shard, batches, count) if not (run.folder / record_path(n)).exists()]
        for shard in range(count)
        if not (run.folder / SHARDS / f"{shard:04d}-of-{count:04d}.json").exists()
    ]


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


# In words


def as_text(found: Forecast, kind: str) -> str:
    """What a user reads before starting: a table of the stages, and what they come to."""
    if not found.items:
        return f"Nothing is to be done: all {len(found.runs)} runs of {', '.join(found.asked)} are there."
    summary = (
        f"{len(found.runs)} runs, of which {found.shared} serve more than one row; "
        f"{len(found.runs) - len(found.items)} are built, {len(found.items)} are left: {found.jobs.total():,} jobs."
    )
    costs = _on_gpus(found) if kind == "unlearn_canvas" else _on_cores(found)
    return "\n".join([", ".join(found.asked), summary, "", *_stages(found), "", *costs])


def _stages(found: Forecast) -> list[str]:
    header = f"{'stage':<12}{'runs':>6}{'left':>6}{'jobs':>6}{'steps':>10}{'images':>9}{'disk':>10}"
    lines = [header, "-" * len(header)]
    for stage in JOBS:
        runs = sum(run.stage == stage for run in found.runs.values())
        items = [item for item in found.items.values() if item.run.stage == stage]
        if runs:
            lines.append(_line(stage, runs, items))
    return [*lines, "-" * len(header), _line("all", len(found.runs), list(found.items.values()))]


def _line(stage: str, runs: int, items: list[Item]) -> str:
    work = sum((item.amount for item in items), Amount())
    jobs = sum(sum(item.jobs.values()) for item in items)
    steps, images = (f"{count:,}" if count else "" for count in (work.steps, work.images))
    return f"{stage:<12}{runs:>6}{len(items):>6}{jobs:>6}{steps:>10}{images:>9}{in_bytes(work.disk):>10}"


def _on_gpus(found: Forecast) -> list[str]:
    flop = FLOP.of(found.amount)
    longest, chain = found.longest_chain(FLOP)
    lines = [f"{flop / 1e18:.3g} EFLOP", "", f"{'GPU-hours':<10}{'floor':>8}{'expected':>10}{'longest chain':>15}"]
    for gpu in GPUS:
        floor, expected = (flop / speed / 3600 for speed in (gpu.peak, gpu.peak * gpu.share))
        row = longest / (gpu.peak * gpu.share) / 3600
        lines.append(f"{gpu.name:<10}{floor:>8.1f}{expected:>10.1f}{row:>15.1f}")
    peaks = ", ".join(f"{gpu.name} {gpu.peak / 1e12:.0f}" for gpu in GPUS)
    return [
        *lines,
        "",
        f"floor: at the bf16 peak of the data sheet, in TFLOP/s: {peaks}. expected:",
        *(f"  {gpu.name} at {gpu.share:.1%} of it, {gpu.source}" for gpu in GPUS),
        f"longest chain: {_chain(chain)}",
    ]


def _on_cores(found: Forecast) -> list[str]:
    minutes = (CORE_SECONDS.of(found.amount) + JOB_SECONDS * found.jobs.total()) / 60
    longest, chain = found.longest_chain(CORE_SECONDS)
    lines = [f"about {minutes:.0f} minutes of one CPU core, as measured on an AMD EPYC server"]
    if steps := found.amount.world_steps:
        lines.append(f"besides {steps:,} steps of training the miniature's own networks, which are not in this time")
    return [*lines, f"longest chain, {longest / 60:.0f} minutes: {_chain(chain)}"]


def _chain(runs: list[Run]) -> str:
    return " -> ".join(f"{run.stage} {run.slug}" for run in runs)


def in_bytes(count: float) -> str:
    """A number of bytes in the largest unit that leaves a number above one; nothing for none."""
    if not count:
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
