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

from corelib.costs.workload import (
    AMOUNTS,
    NETWORKS,
    Amount,
    Costs,
    Networks,
    sampled,
    shards_left,
)
from corelib.errors import ConfigurationError
from corelib.runs.layout import RESULTS, SHARDS
from corelib.runs.run import Run
from corelib.runs.stages import JOBS, PRODUCTS, SHARD
from corelib.sampling.grid import batches_of
from corelib.settings.sampling import SamplesStage
from corelib.study.overlays import PAPER
from corelib.study.staleness import MISSING, OTHER, Assessment, assess
from corelib.study.targets import below_here, plan_of, product_at, study_at


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


def in_bytes(count: float) -> str:
    """A number of bytes in the largest unit that leaves a number above one."""
    if not count:
        return "0 B"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
