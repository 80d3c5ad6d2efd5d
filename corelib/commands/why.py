"""`python -m corelib why`: the reasons why targets must be built.

For each missing run, the reason is how it differs from its counterpart in the study's base, or else from the nearest
existing run.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from corelib.commands.arguments import CONFIGURATION, add_targets
from corelib.commands.leaf_names import BaseStudy, Use, leaf_differences, uses_of
from corelib.costs.device_time import GPUS, core_seconds
from corelib.costs.forecast import Forecast, forecast_of
from corelib.costs.workload import FLOP_COSTS, Workload
from corelib.files.sealed_json import read_or_none
from corelib.files.text import counted
from corelib.runs.layout import MANIFEST, RUNS, SPECIFICATION, slugify
from corelib.runs.run import Run
from corelib.runs.specification import Specification, read_specification
from corelib.runs.stage_registry import PRODUCTS
from corelib.study.loading import load_plan
from corelib.study.targets import study_at

HELP = "explain why targets must be built: the differences from existing runs"

MAX_DIFFERENCES = 6
"""Maximum number of differences that are printed; of the others, only the number is."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `targets`."""
    add_targets(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the reasons."""
    print(as_text(*forecast_of(arguments.targets, CONFIGURATION), CONFIGURATION))
    return 0


def as_text(found: Forecast, kind: str, configuration: Path) -> str:
    """The reasons as text: the causes first, then the number of runs that follow from them.

    Args:
        found: the forecast.
        kind: the world of the targets; minutes of a core for `miniature`, hours of a GPU otherwise.
        configuration: the folder of the configuration.
    """
    if not found.items:
        return found.nothing_to_do_message
    reasons = reasons_of(found, configuration)
    causes = [reason for reason in reasons if reason.is_cause]
    lines = []
    for reason in causes:
        item = found.items[reason.run.name]
        cost = _cost(item.work, sum(item.jobs.values()), kind)
        lines += [f"{reason.run.stage} {reason.run.slug}{f' ({cost})' if cost else ''}", f"    {reason}"]
    num_following = len(reasons) - len(causes)
    if num_following:
        lines.append(f"and {counted(num_following, 'run')} that {'builds' if num_following == 1 else 'build'} on these")
    total = _cost(found.work, found.jobs.total(), kind)
    return "\n".join([*lines, f"{counted(len(reasons), 'run')} in all{f', {total}' if total else ''}."])


def _cost(work: Workload, jobs: int, kind: str) -> str:
    """The steps, images and time of some work in a number of jobs, on the first GPU of the list or on a CPU core."""
    parts = [counted(count, word) for count, word in ((work.steps, "step"), (work.images, "image")) if count]
    if kind != "miniature":
        seconds, device = FLOP_COSTS.of(work) / GPUS[0].peak / GPUS[0].share, GPUS[0].name
    else:
        seconds, device = core_seconds(work, jobs), "a core"
    if seconds >= 6000:
        parts.append(f"about {seconds / 3600:.1f} hours of {device}")
    elif seconds >= 60:
        parts.append(f"about {seconds / 60:.0f} minutes of {device}")
    return ", ".join(parts)


# Reasons


@dataclass(frozen=True)
class Reason:
    """Why a run must be built.

    Attributes:
        run: the run.
        nearest: folder of the complete run with which it is compared; None if there is none.
        differences: the differences from that run in its own content, without those of its inputs, in words.
        inputs: roles of the inputs that differ from those of that run.
        fault: why the existing run is not valid; None if the run is missing.
    """

    run: Run
    nearest: Path | None
    differences: list[str]
    inputs: list[str]
    fault: str | None = None

    @property
    def is_cause(self) -> bool:
        """Whether its own content is new, and not only its inputs."""
        return self.fault is not None or self.nearest is None or bool(self.differences) or not self.inputs

    def __str__(self) -> str:
        if self.fault is not None and not self.differences and not self.inputs:
            return self.fault
        if self.nearest is None:
            return "there is no earlier run to compare with"
        shown = self.differences[:MAX_DIFFERENCES]
        if len(self.differences) > MAX_DIFFERENCES:
            shown.append(f"and {len(self.differences) - MAX_DIFFERENCES} more")
        if not self.differences:
            new_inputs = f"another {', '.join(self.inputs)}"
            shown.append(new_inputs if self.inputs else "no difference, but the existing run is not complete")
        return f"{'; '.join(shown)} (compared with {self.nearest.name})"


def reasons_of(found: Forecast, configuration: Path) -> list[Reason]:
    """The reason for each run of a forecast that must be built, in an order in which they could be built."""
    order = {name: position for position, name in enumerate(_in_order(found))}
    items = sorted(found.items.values(), key=lambda item: order[item.run.name])
    comparison = Comparison(found, configuration)
    return [replace(comparison.reason(item.run), fault=found.faults.get(item.run.name)) for item in items]


def _in_order(found: Forecast) -> Iterator[str]:
    """The names of all runs, each after those that it builds on."""
    seen: set[str] = set()

    def visit(run: Run) -> Iterator[str]:
        if run.name not in seen:
            seen.add(run.name)
            for needed in (*run.inputs.values(), *run.after.values()):
                yield from visit(needed)
            yield run.name

    for product in found.asked.values():
        yield from visit(product)


class Comparison:
    """The comparison of runs that have to be built with the runs that are here.

    A run is compared with its counterpart in the study's base, if that is built; else with the complete run of the same
    name, or else of its stage, from which it differs least, unless that run is of another kind of world.

    Args:
        found: the forecast.
        configuration: the folder of the configuration.
    """

    def __init__(self, found: Forecast, configuration: Path) -> None:
        studies = dict.fromkeys(study_at(Path(path.split(" ")[0]).parent) for path in found.asked)
        plans = [load_plan(study, configuration) for study in studies]
        self._uses = {name: use for plan in reversed(plans) for name, use in uses_of(plan).items()}
        self._bases = [BaseStudy(plan, configuration) for plan in plans]
        self._read = functools.cache(functools.partial(read_or_none, read_specification))  # compared with many runs

    def reason(self, run: Run) -> Reason:
        """Why a run has to be built."""
        use = self._uses.get(run.name)
        for base in self._bases:
            for other, other_use in base.counterparts(run, use):
                is_here = other.name != run.name and other.manifest.exists()
                if is_here and (existing := self._read(other.folder / SPECIFICATION)) is not None:
                    return Reason(run, other.folder, *_compared(existing, other_use, run, use))
        first = {needed.stage for needed in run.with_all_inputs().values() if not needed.inputs}
        best: tuple[tuple[bool, int], Path, list[str], list[str]] | None = None
        for folder in sorted((RUNS / run.stage).glob("*")):
            if folder == run.folder or not (run.stage in PRODUCTS or (folder / MANIFEST).exists()):
                continue
            existing = self._read(folder / SPECIFICATION)
            if existing is None or first.isdisjoint(self._first_stages(existing) or first):
                continue
            differences, inputs = _compared(existing, None, run, use)
            is_other = folder.name.rsplit("-", 1)[0] != slugify(run.slug)
            distance = (is_other, len(differences) + len(inputs))
            if (best is None or distance < best[0]) and not (is_other and len(differences) > MAX_DIFFERENCES):
                best = distance, folder, differences, inputs
        return Reason(run, None, [], []) if best is None else Reason(run, *best[1:])

    def _first_stages(self, specification: Specification) -> set[str]:
        """The stages of the present runs on which a run builds and which build on no other.

        Runs of two kinds of world have none in common.
        """
        if not specification.builds_on:
            return {specification.stage}
        before = (self._read(RUNS / name / SPECIFICATION) for name in specification.builds_on.values())
        return {stage for one in before if one is not None for stage in self._first_stages(one)}


def _compared(old: Specification, old_use: Use | None, run: Run, use: Use | None) -> tuple[list[str], list[str]]:
    """The differences of a run from an older specification in words, and the roles of the inputs that differ."""
    new = run.specification
    inputs = [role for role, needed in run.inputs.items() if old.inputs.get(role) != needed.digest]
    return [*leaf_differences(old, old_use, new, use), *_other_differences(old, new)], inputs


def _other_differences(old: Specification, new: Specification) -> Iterator[str]:
    """The differences between two specifications in threads, code and packages, in words."""
    if old.threads != new.threads:
        yield f"threads: {old.threads} -> {new.threads}"
    for name in sorted(old.code.keys() | new.code.keys()):
        if old.code.get(name) != new.code.get(name):
            yield f"module {name} has changed"
    for name in sorted(old.packages.keys() | new.packages.keys()):
        if old.packages.get(name) != new.packages.get(name):
            yield f"{name}: {old.packages.get(name, 'none')} -> {new.packages.get(name, 'none')}"
