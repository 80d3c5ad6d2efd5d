"""`python -m corelib why`: why targets have to be made.

Of each run that is missing, what differs from the nearest one that is there.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from corelib.commands.arguments import CONFIGURATION, add_targets
from corelib.costs.forecast import Forecast, forecast_of
from corelib.costs.workload import FLOP, GPUS, Workload, seconds_of_a_core
from corelib.files.sealed_json import if_readable
from corelib.runs.layout import MANIFEST, RUNS, SPECIFICATION
from corelib.runs.run import Run, slugged
from corelib.runs.specification import Specification, read_specification
from corelib.runs.stages import PRODUCTS

HELP = "why targets have to be made: what differs from what is there"

MOST = 6
"""Differences that are named; of the others the number."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the targets."""
    add_targets(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the reasons."""
    print(as_text(*forecast_of(arguments.targets, CONFIGURATION)))
    return 0


def as_text(found: Forecast, kind: str) -> str:
    """What a user reads: the causes first, then how much follows from them."""
    if not found.items:
        return found.completeness
    reasons = reasons_of(found)
    causes = [reason for reason in reasons if reason.is_cause]
    lines = []
    for reason in causes:
        item = found.items[reason.run.name]
        cost = _cost(item.work, sum(item.jobs.values()), kind)
        lines += [f"{reason.run.stage} {reason.run.slug}{f' ({cost})' if cost else ''}", f"    {reason}"]
    following = len(reasons) - len(causes)
    if following:
        lines.append(f"and {following} runs that build on these")
    total = _cost(found.work, found.jobs.total(), kind)
    return "\n".join([*lines, f"{len(reasons)} runs in all{f', {total}' if total else ''}."])


def _cost(work: Workload, jobs: int, kind: str) -> str:
    """How long some work in so many jobs takes on the first of the GPUs, or on a core."""
    parts = [f"{count:,} {word}" for count, word in ((work.steps, "steps"), (work.images, "images")) if count]
    if kind == "unlearn_canvas":
        seconds, device = FLOP.of(work) / GPUS[0].peak / GPUS[0].share, GPUS[0].name
    else:
        seconds, device = seconds_of_a_core(work, jobs), "a core"
    if seconds >= 6000:
        parts.append(f"about {seconds / 3600:.1f} hours of {device}")
    elif seconds >= 60:
        parts.append(f"about {seconds / 60:.0f} minutes of {device}")
    return ", ".join(parts)


# Reasons


@dataclass(frozen=True)
class Reason:
    """Why a run is missing.

    Attributes:
        run: the run.
        nearest: the folder of the complete run of its stage from which it differs least, or None.
        differences: in words, those of its own content; what comes with other inputs is not among them.
        inputs: the roles of inputs that are other runs than the nearest one's.
        fault: why the run itself, which is there, is not what it should be; None if it is missing.
    """

    run: Run
    nearest: Path | None
    differences: list[str]
    inputs: list[str]
    fault: str | None = None

    @property
    def is_cause(self) -> bool:
        """Whether something of its own is new, and not only what it builds on."""
        return self.fault is not None or self.nearest is None or bool(self.differences) or not self.inputs

    def __str__(self) -> str:
        if self.fault is not None and not self.differences and not self.inputs:
            return self.fault
        if self.nearest is None:
            return "no run of this kind is here yet"
        shown = self.differences[:MOST]
        if len(self.differences) > MOST:
            shown.append(f"and {len(self.differences) - MOST} more")
        if not self.differences:
            other = f"another {', '.join(self.inputs)}"
            shown.append(other if self.inputs else "the same content, but not complete")
        return f"{'; '.join(shown)} (beside {self.nearest.name})"


def reasons_of(found: Forecast) -> list[Reason]:
    """Why each run that a forecast names has to be made, in the order in which they would be."""
    order = {name: place for place, name in enumerate(_in_order(found))}
    items = sorted(found.items.values(), key=lambda item: order[item.run.name])
    read = functools.cache(functools.partial(if_readable, read_specification))  # each is compared with many runs
    return [replace(_reason(item.run, read), fault=found.faults.get(item.run.name)) for item in items]


def _in_order(found: Forecast) -> Iterator[str]:
    """All runs, each after what it builds on."""
    seen: set[str] = set()

    def visit(run: Run) -> Iterator[str]:
        if run.name not in seen:
            seen.add(run.name)
            for below in (*run.inputs.values(), *run.after.values()):
                yield from visit(below)
            yield run.name

    for product in found.asked.values():
        yield from visit(product)


def _reason(run: Run, read: Callable[[Path], Specification | None]) -> Reason:
    best: tuple[tuple[int, int], Path, list[str], list[str]] | None = None
    for folder in sorted((RUNS / run.stage).glob("*")):
        if folder == run.folder or not (run.stage in PRODUCTS or (folder / MANIFEST).exists()):
            continue
        if (there := read(folder / SPECIFICATION)) is None:
            continue
        differences, inputs = list(_differences(there, run.specification)), _other_inputs(there, run)
        distance = (folder.name.rsplit("-", 1)[0] != slugged(run.slug), len(differences) + len(inputs))
        if best is None or distance < best[0]:
            best = distance, folder, differences, inputs
    if best is None or best[0][0]:
        return Reason(run, None, [], [])
    return Reason(run, *best[1:])


def _differences(there: Specification, wanted: Specification) -> Iterator[str]:
    was, now = (dict(_leaves(specification.settings)) for specification in (there, wanted))
    for key in sorted(was.keys() | now.keys()):
        if was.get(key) != now.get(key):
            yield f"{key}: {_short(was.get(key))} -> {_short(now.get(key))}"
    if there.threads != wanted.threads:
        yield f"threads: {there.threads} -> {wanted.threads}"
    for name in sorted(there.code.keys() | wanted.code.keys()):
        if there.code.get(name) != wanted.code.get(name):
            yield f"module {name} has changed"
    for name in sorted(there.packages.keys() | wanted.packages.keys()):
        if there.packages.get(name) != wanted.packages.get(name):
            yield f"{name}: {there.packages.get(name, 'none')} -> {wanted.packages.get(name, 'none')}"


def _other_inputs(there: Specification, run: Run) -> list[str]:
    return [role for role, below in run.inputs.items() if there.inputs.get(role) != below.digest]


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, below in value.items():
            yield from _leaves(below, f"{key}.{name}" if key else name)
    else:
        yield key, value


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
