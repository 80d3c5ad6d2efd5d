"""Forecast of the costs of targets: jobs, steps, images, FLOP, hours, disk, and the longest chain of runs.

The counts follow from the plan and from the files on the disk, as Snakemake's own do; complete runs are not counted.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from corelib.costs.workload import (
    NETWORKS,
    Costs,
    NetworkSizes,
    Workload,
    remaining_shards,
    workload_of,
    workload_of_batches,
)
from corelib.errors import ConfigurationError
from corelib.runs.layout import RESULTS, SHARDS
from corelib.runs.run import Run
from corelib.runs.stage_registry import PRODUCTS, STAGES
from corelib.sampling.grid import split_into_batches
from corelib.settings.sampling import SamplesStage
from corelib.study.loading import load_plan
from corelib.study.row_names import EvaluatedModel, models_of_row, names_row
from corelib.study.staleness import IS_MISSING, IS_OTHER, Assessment, assess
from corelib.study.study_files import PAPER
from corelib.study.targets import is_summary, product_at, relative_target, study_at


@dataclass(frozen=True)
class Item:
    """A run that has to be built, and its remaining jobs.

    Attributes:
        run: the run.
        jobs: number of remaining jobs of each rule.
        parts: work of each of these jobs that computes; they do not wait for each other. The job that gathers the
            shards of a run is not one of them.
    """

    run: Run
    jobs: Mapping[str, int]
    parts: tuple[Workload, ...]

    @functools.cached_property
    def work(self) -> Workload:
        """The work of all these jobs."""
        return sum(self.parts, Workload())


@dataclass(frozen=True)
class Forecast:
    """The work that remains for some products.

    Attributes:
        asked: the products, by their path.
        runs: every run that they need, by name, products included.
        items: the runs that have to be built, by name.
        faults: the faults of existing runs and products that have to be rebuilt, by name.
        shared: number of runs that serve more than one row.
        absent: the runs that are absent but not needed, since the runs built on them exist.
    """

    asked: Mapping[str, Run]
    runs: Mapping[str, Run]
    items: Mapping[str, Item]
    faults: Mapping[str, str]
    shared: int
    absent: list[Run]

    @property
    def jobs(self) -> Counter[str]:
        """Number of jobs of each rule that Snakemake would run."""
        return sum((Counter(item.jobs) for item in self.items.values()), Counter[str]())

    @property
    def work(self) -> Workload:
        """The work of all items."""
        return sum((item.work for item in self.items.values()), Workload())

    @property
    def nothing_to_do_message(self) -> str:
        """The message for products of which nothing has to be built."""
        products = ", ".join(self.asked)
        if not self.absent:
            return f"Nothing to do: all {len(self.runs)} runs of {products} exist."
        return (
            f"Nothing to do: {len(self.absent)} of the {len(self.runs)} runs of {products} are absent but not needed, "
            "since the runs built on them exist. To rebuild one, remove those as well: "
            f"`python -m corelib clean {self.absent[0].name} --delete`."
        )

    def longest_chain(self, costs: Costs) -> tuple[float, list[Run]]:
        """The chain of dependent runs that takes longest if there is a device for every job; its cost, and the runs."""
        chains: dict[str, tuple[float, list[Run]]] = {}

        def chain(run: Run) -> tuple[float, list[Run]]:
            if run.name not in chains:
                before = max(map(chain, (*run.inputs.values(), *run.after.values())), default=(0.0, []), key=_length)
                item = self.items.get(run.name)
                cost = max(map(costs.of, item.parts), default=0.0) if item else 0.0
                chains[run.name] = before[0] + cost, before[1] + ([run] if item else [])
            return chains[run.name]

        return max(map(chain, self.asked.values()), default=(0.0, []), key=_length)


def _length(chain: tuple[float, list[Run]]) -> float:
    return chain[0]


def forecast_of(targets: Sequence[str], configuration: Path) -> tuple[Forecast, str]:
    """The forecast of targets as one would give them to Snakemake, and the kind of their world.

    The targets may also be the words that name one row of a table (`corelib.study.row_names`).
    Raises `ConfigurationError` for a target that no study has, and for targets of two worlds.
    """
    if names_row(targets):
        models = models_of_row(targets, configuration)
        return _only(forecast_of(targets[:1], configuration)[0], models), models[0].world
    plan = functools.cache(functools.partial(load_plan, folder=configuration))
    wanted: dict[tuple[Path, str], str] = {}
    for target in targets:
        if target == "all":
            wanted |= dict.fromkeys([(RESULTS, name) for name in plan(PAPER).products()], target)
            continue
        path = Path(relative_target(target))
        if path.parent != RESULTS and path.parent.parent != RESULTS:
            raise ConfigurationError(f"{target}: expected a table or figure, such as {RESULTS}/table1.csv, or all.")
        wanted[path.parent, path.name.split(".")[0]] = target
    products: dict[str, Run] = {}
    kinds: dict[str, str] = {}
    needed: set[str] = set()

    def is_built(run: Run) -> bool:
        return run.name in needed or run.manifest.exists()

    for place, name in sorted(wanted, key=lambda one: is_summary(one[1])):
        product = product_at(place, name, lambda study: plan(study).products(is_built))
        needed |= product.with_all_inputs().keys()
        products[str(place / name)] = product
        kinds[plan(study_at(place)).study.world.kind] = wanted[place, name]
    if len(kinds) > 1:
        raise ConfigurationError(
            f"{' and '.join(kinds.values())}: these targets belong to two worlds; request those of one world at a time."
        )
    (kind,) = kinds
    return forecast(products, kind), kind


def _only(found: Forecast, models: Sequence[EvaluatedModel]) -> Forecast:
    """The part of a forecast that some models of its products need."""
    asked = {model.label: model.runs["cells"] for model in models}
    runs = {name: run for cells in asked.values() for name, run in cells.with_all_inputs().items()}
    items = {name: item for name, item in found.items.items() if name in runs}
    absent = [run for run in found.absent if run.name in runs]
    return replace(found, asked=asked, runs=runs, items=items, absent=absent)


def forecast(products: Mapping[str, Run], kind: str, assessment: Assessment | None = None) -> Forecast:
    """The forecast of products, from their plan and the files on the disk.

    Args:
        products: the products, by their path without its extension.
        kind: kind of their world.
        assessment: the runs that have to be built, if known already.
    """
    runs: dict[str, Run] = {}
    rows: Counter[str] = Counter()
    for path, product in products.items():
        runs |= product.with_all_inputs()
        for row in () if is_summary(path) else product.inputs.values():
            rows.update(row.with_all_inputs().keys())
    if assessment is None:
        assessment = assess({Path(f"{path}.json"): product for path, product in products.items()})
    pending = {name: run for name, run in runs.items() if assessment.is_rebuilt(name)}
    pending |= {
        product.name: product for path, product in products.items() if Path(f"{path}.json") in assessment.products
    }
    items = {name: _item(run, NETWORKS[kind], assessment) for name, run in pending.items()}
    items |= {name: _visit(run) for name, run in runs.items() if name not in pending and _depends_on(run, pending)}
    absent = [
        run
        for name, run in runs.items()
        if name not in items and run.stage not in PRODUCTS and not run.manifest.exists()
    ]
    faults_of_products = {
        products[str(path.with_suffix(""))].name: fault
        for path, fault in assessment.products.items()
        if str(path.with_suffix("")) in products and fault not in (f"{path} {IS_MISSING}", f"{path} {IS_OTHER}")
    }
    faults = assessment.stale | faults_of_products
    return Forecast(products, runs, items, faults, shared=sum(count > 1 for count in rows.values()), absent=absent)


def _depends_on(run: Run, pending: Mapping[str, Run]) -> bool:
    return not pending.keys().isdisjoint(run.with_all_inputs())


def _visit(run: Run) -> Item:
    """A complete run built on one that is rebuilt: its jobs notice that it is complete, and end."""
    stage = STAGES[run.stage]
    if stage.shards and isinstance(run.settings, SamplesStage):
        shards = math.ceil(len(split_into_batches(run.settings)) / run.execution.batches_per_shard)
        return Item(run, {stage.rule: 1, stage.shards[0]: shards}, (Workload(),) * shards)
    return Item(run, {stage.rule: 1}, (Workload(),))


def _item(run: Run, networks: NetworkSizes, assessment: Assessment) -> Item:
    stage = STAGES[run.stage]
    if stage.shards and isinstance(run.settings, SamplesStage):
        rebuilt = set(assessment.shards)
        if any(assessment.is_rebuilt(source.name) for source in run.inputs.values()):
            rebuilt |= set((run.folder / SHARDS).glob("*.json"))
        remaining = remaining_shards(run, run.settings, rebuilt)
        shards = tuple(workload_of_batches(run.settings, batches, networks) for batches in remaining)
        jobs = {stage.shards[0]: len(shards)} if shards else {}
        return Item(run, {**jobs, stage.rule: 1}, shards)
    return Item(run, {stage.rule: 1}, (workload_of(run, networks),))
