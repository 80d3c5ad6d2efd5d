"""What targets will cost, before anything runs: jobs, steps, images, FLOP, hours, disk, and the longest chain.

The counts follow from the plan and from what lies on the disk, as Snakemake's own would; what is built is subtracted.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from corelib.addresses import RESULTS, Run
from corelib.amounts import (
    AMOUNTS,
    CORE_SECONDS,
    FLOP,
    GPUS,
    NETWORKS,
    Amount,
    Costs,
    Networks,
    sampled,
    seconds_of_a_core,
    shards_left,
)
from corelib.errors import ConfigurationError
from corelib.gathering import SHARDS, batches_of
from corelib.settings.sampling import SamplesStage
from corelib.staleness import MISSING, OTHER, Assessment, assess
from corelib.studies import PAPER
from corelib.targets import PRODUCTS, below_here, plan_of, product_at, study_at

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
        faults: why a run or product that is there is not what it should be, by name.
        shared: how many runs serve more than one row.
        absent: those that are not there, and not needed, since what was made of them is there.
    """

    asked: Mapping[str, Run]
    runs: Mapping[str, Run]
    items: Mapping[str, Item]
    faults: Mapping[str, str]
    shared: int
    absent: list[Run]

    @property
    def jobs(self) -> Counter[str]:
        """How many jobs of each rule Snakemake would run."""
        return sum((Counter(item.jobs) for item in self.items.values()), Counter[str]())

    @property
    def amount(self) -> Amount:
        """All work together."""
        return sum((item.amount for item in self.items.values()), Amount())

    @property
    def completeness(self) -> str:
        """What is said where nothing has to be made."""
        products = ", ".join(self.asked)
        if not self.absent:
            return f"Nothing is to be done: all {len(self.runs)} runs of {products} are there."
        return (
            f"Nothing is to be done: of the {len(self.runs)} runs of {products}, {len(self.absent)} are not there, and "
            "not needed, since what was made of them is. To have one made again, remove that, too: "
            f"`python -m corelib clean {self.absent[0].name} --delete`."
        )

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
            path = Path(below_here(target))
            place, names = path.parent, [path.name.split(".")[0]]
        if place != RESULTS and place.parent != RESULTS:
            raise ConfigurationError(f"{target}: expected a table or figure, such as {RESULTS}/table1.csv, or all.")
        for name in names:
            asked[str(place / name)] = product_at(place, name, lambda study: plan(study).products())
            kinds[plan(study_at(place)).study.world.kind] = target
    if len(kinds) > 1:
        raise ConfigurationError(f"{' and '.join(kinds.values())}: of two worlds, expected targets of one at a time.")
    (kind,) = kinds
    return forecast(asked, kind), kind


def forecast(asked: Mapping[str, Run], kind: str, found: Assessment | None = None) -> Forecast:
    """Look at the plan and the disk.

    Args:
        asked: the products, by the path without its ending.
        kind: of their world.
        found: what has to be made, if that is known already.
    """
    runs: dict[str, Run] = {}
    rows: Counter[str] = Counter()
    for product in asked.values():
        runs |= product.with_all_inputs()
        for row in product.inputs.values():
            rows.update(row.with_all_inputs().keys())
    if found is None:
        found = assess({Path(f"{path}.json"): product for path, product in asked.items()})
    missing = {name: run for name, run in runs.items() if found.is_made(name)}
    missing |= {product.name: product for path, product in asked.items() if Path(f"{path}.json") in found.products}
    items = {name: _item(run, NETWORKS[kind], found) for name, run in missing.items()}
    items |= {name: _visit(run) for name, run in runs.items() if name not in missing and _is_above(run, missing)}
    absent = [
        run
        for name, run in runs.items()
        if name not in items and run.stage not in PRODUCTS and not run.manifest.exists()
    ]
    of_products = {
        asked[str(path.with_suffix(""))].name: fault
        for path, fault in found.products.items()
        if str(path.with_suffix("")) in asked
    }
    faults = found.stale | {name: fault for name, fault in of_products.items() if not fault.endswith((MISSING, OTHER))}
    return Forecast(asked, runs, items, faults, shared=sum(count > 1 for count in rows.values()), absent=absent)


def _is_above(run: Run, missing: Mapping[str, Run]) -> bool:
    return not missing.keys().isdisjoint(run.with_all_inputs())


def _visit(run: Run) -> Item:
    """A run that is complete, and built on one that is made again: its jobs see that, and end."""
    jobs = {JOBS[run.stage]: 1}
    if isinstance(run.settings, SamplesStage):
        jobs[SHARD] = math.ceil(len(batches_of(run.settings)) / run.execution["batches_per_shard"])
    return Item(run, jobs, Amount(), Amount())


def _item(run: Run, networks: Networks, found: Assessment) -> Item:
    if isinstance(run.settings, SamplesStage):
        remade = set(found.shards)
        if any(found.is_made(below.name) for below in run.inputs.values()):
            remade |= set((run.folder / SHARDS).glob("*.json"))
        shards = [sampled(run.settings, batches, networks) for batches in shards_left(run, run.settings, remade)]
        longest = max(shards, default=Amount(), key=lambda amount: amount.images)
        jobs = {SHARD: len(shards), JOBS["samples"]: 1} if shards else {JOBS["samples"]: 1}
        return Item(run, jobs, sum(shards, Amount()), longest)
    amount = AMOUNTS[run.stage](run, networks) if run.stage in AMOUNTS else Amount()
    return Item(run, {JOBS[run.stage]: 1}, amount, amount)


# In words


def as_text(found: Forecast, kind: str) -> str:
    """What a user reads before starting: a table of the stages, and what they come to."""
    if not found.items:
        return found.completeness
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
    minutes = seconds_of_a_core(found.amount, found.jobs.total()) / 60
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
