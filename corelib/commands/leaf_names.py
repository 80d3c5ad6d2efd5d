"""The leaves of a study behind the settings of its runs, with the values as the study has them.

A run's specification has scaled learning rates and lengths, and lists of anchors in place of a scheme. The user has
written neither.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corelib.files.text import printable
from corelib.runs.run import Run
from corelib.runs.specification import Specification
from corelib.study.loading import base_of, liked_method, load_plan
from corelib.study.plan import Plan
from corelib.study.row_names import runs_of_model
from corelib.study.schema import DEFAULT, ORIGINAL, Row
from corelib.study.study_files import study_names
from corelib.study.wording import to_yaml

FINE_TUNING = {
    "optimizer": "training.optimizer",
    "precision": "training.precision",
    "wording": "prompts",
    "seed": "training seed",
    "negative_prompt": "sampling.negative_prompt",
    "": "probes.PROBE",
}

SECTIONS: Mapping[str, Mapping[str, str]] = {
    "images": {"": "world"},
    "autoencoder": {"autoencoder": "world.autoencoder", "resolution": "world.resolution", "seed": "world.seed"},
    "pipeline": {"text_encoder": "world.text_encoder", "denoiser": "world.denoiser", "seed": "world.seed"},
    "classifier": {"classifier": "world.classifier", "seed": "world.seed"},
    "slices": {"images": "training.images", "": "tasks.TASK"},
    "latents": {"images": "training.images"},
    "generated": {"images": "training.images"},
    "saliency": {
        "saliency": "methods.METHOD.saliency",
        "trained": "methods.METHOD.trained",
        "batch": "methods.METHOD.batch",
        "seed": "training seed",
        "precision": "training.precision",
        "wording": "prompts",
    },
    "unlearning": {
        "objective": "methods.METHOD.objective",
        "trained": "methods.METHOD.trained",
        "learning_rate": "methods.METHOD.learning_rate",
        "batch": "methods.METHOD.batch",
        "length": "methods.METHOD.length.TASK",
        "candidates": "anchors of",
        "draw": "anchoring.draw",
        "min_steps": "training.scale.min_steps",
        "seed": "training seed",
        "wording": "prompts",
        "": "training",
    },
    "relearning": FINE_TUNING,
    "inversion": FINE_TUNING,
    "prefixes": FINE_TUNING,
    "resampled": {"samples.wording": "prompts", "samples.sampling": "sampling", "": "probes.PROBE"},
    "edits": {
        "edit": "baselines.METHOD.edit",
        "candidates": "anchors of",
        "retain": "tasks.TASK.retain",
        "objects": "tasks.TASK.objects",
        "wording": "prompts",
    },
    "retrained": {
        "text_encoder": "world.text_encoder",
        "denoiser": "world.denoiser",
        "forget": "tasks.TASK.forget",
        "seed": "training seed",
    },
    "samples": {"wording.variants": "prompts.evaluation", "wording": "prompts"},
    "cells": {"forget": "tasks.TASK.forget", "": "tasks.TASK.evaluation"},
}
"""The section of the study for a prefix of the keys of a stage's settings; other keys have their own names. PROBE
stands for the probe."""


@dataclass(frozen=True)
class Use:
    """What a run is for.

    Attributes:
        plan: the plan of the study that names it.
        task: its task; empty for a run that serves all tasks.
        row: its row; None for a run that serves all rows.
        seed: training seed of its model.
    """

    plan: Plan
    task: str = ""
    row: Row | None = None
    seed: int | None = None

    @property
    def scheme(self) -> Any:
        """The anchors of its row."""
        assert self.row is not None
        return self.row.anchors or self.plan.study.anchors_of(self.row.method, self.task)


def uses_of(plan: Plan) -> dict[str, Use]:
    """The use of each run of a study's rows, by the name of the run."""
    study = plan.study
    tables = [
        (task, row) for table in study.tables.values() for task in table.tasks for row in study.rows_of(table.rows)
    ]
    columns = [(figure.task, row) for figure in study.figures.values() for row in study.rows_of(figure.columns)]
    probed = [
        (task, row) for probe in study.probes.values() for task in probe.tasks for row in study.rows_of(probe.rows)
    ]
    steps = [
        (task, row)
        for sequence in study.sequences.values()
        for task in [*sequence.tasks, *sequence.at_once]
        for row in study.rows_of(sequence.rows)
    ]
    uses: dict[str, Use] = {}
    for task, row in [*tables, *columns, *probed, *steps]:
        if row.method == ORIGINAL:
            continue
        tasks_behind = study.sequence_to(task) if study.has_anchors(row.method) else [task]
        for step, seed in itertools.product(tasks_behind, study.seeds_of(row)):
            for run in runs_of_model(plan, step, row, seed).values():
                uses.setdefault(run.name, Use(plan, step, row, seed))
    for task in study.tasks:
        uses.setdefault(plan.slice(task).name, Use(plan, task))
    return uses


class BaseStudy:
    """The study on which another one is built, and the counterparts of the other's runs in it.

    Args:
        plan: the plan of the other study.
        configuration: the folder of the configuration.
    """

    def __init__(self, plan: Plan, configuration: Path) -> None:
        self._study, self._configuration = plan.name, configuration
        base = base_of(plan.name, configuration)
        self.plan = load_plan(base, configuration) if base in study_names(configuration) else None
        self._runs: dict[tuple[str, str], Run] = {}
        for product in self.plan.products().values() if self.plan else ():
            self._runs |= {(run.stage, run.slug): run for run in product.with_all_inputs().values()}

    def counterparts(self, run: Run, use: Use | None) -> Iterator[tuple[Run, Use | None]]:
        """The runs of the base that a run may replace, the most similar first.

        They are those of the same method, or of the method that it is `like:`, with the row's anchors or the method's.
        """
        if self.plan is None:
            return
        if use is None or use.row is None or use.seed is None:
            if found := self._runs.get((run.stage, run.slug)):
                yield found, use
            return
        study = self.plan.study
        method: str | None = use.row.method
        while method is not None and method not in study.methods:
            method = liked_method(self._study, method, self._configuration)
        if method is None or use.task not in study.tasks or study.length_of(method, use.task) is None:
            return
        seeds = study.seeds_of_method(method)
        seed = use.seed if use.seed in seeds else seeds[0]
        own = [None] if study.anchors_of(method, use.task) is not None else []
        for anchors in [use.row.anchors, *own] if use.row.anchors else own:
            row = Row(name=method, method=method, anchors=anchors)
            if found := runs_of_model(self.plan, use.task, row, seed).get(run.stage):
                yield found, Use(self.plan, use.task, row, seed)


def leaf_differences(old: Specification, old_use: Use | None, new: Specification, use: Use | None) -> Iterator[str]:
    """The differences between the settings of two runs, as leaves of the study of the new one.

    Args:
        old: specification of the old run.
        old_use: what the old run is for, if its study is known.
        new: specification of the new run.
        use: what the new run is for.
    """
    old_leaves, new_leaves = dict(_leaves(old.settings)), dict(_leaves(new.settings))
    changed = [
        key for key in sorted(old_leaves.keys() | new_leaves.keys()) if old_leaves.get(key) != new_leaves.get(key)
    ]
    if new.stage in ("unlearning", "edits") and old_use and use and use.row and old_use.scheme != use.scheme:
        yield f"{_anchors_key(use)}: {_short(old_use.scheme)} -> {_short(use.scheme)}"
        changed = [key for key in changed if not key.startswith("candidates.") and key != "draw"]
    for key in changed:
        values = old_leaves.get(key), new_leaves.get(key)
        yield _difference(new.stage, key, values, old_use, use)


def _anchors_key(use: Use) -> str:
    assert use.row is not None
    if use.row.anchors:
        return f"anchors of the row {use.row.name}"
    study, method = use.plan.study, use.row.method
    entries = study.anchor_entries(method)
    return f"{study.section_of(method)}.{method}.anchors.{use.task if use.task in entries else DEFAULT}"


def _difference(stage: str, key: str, values: tuple[Any, Any], old_use: Use | None, use: Use | None) -> str:
    factor = {"learning_rate": "learning_rate", "length.epochs": "length", "length.steps": "length"}.get(key)
    name = _name(stage, key, use)
    if stage == "unlearning" and factor and use is not None:
        scale = getattr(use.plan.study.training.scale, factor)
        old_scale = getattr(old_use.plan.study.training.scale, factor) if old_use else scale
        unscaled = tuple(_divided(value, by) for value, by in zip(values, (old_scale, scale), strict=True))
        if old_scale != scale and unscaled[0] == unscaled[1]:
            name, values = f"training.scale.{factor}", (old_scale, scale)
        else:
            values = unscaled
    return f"{name}: {_short(values[0])} -> {_short(values[1])}"


def _name(stage: str, key: str, use: Use | None) -> str:
    photo_style = use.plan.study.prompts.photo_style if use else None
    if key == f"wording.names.{photo_style}":
        return f"prompts.photo_in_{'evaluation' if stage == 'samples' else 'training'}"
    sections = SECTIONS.get(stage, {})
    prefix = next((prefix for prefix in sections if key == prefix or key.startswith(f"{prefix}.")), None)
    if prefix is None:
        named = f"{sections['']}.{key}" if "" in sections else key
    elif sections[prefix].endswith(" of"):
        named = f"{sections[prefix]} {key.removeprefix(f'{prefix}.')}"
    else:
        named = sections[prefix] + key.removeprefix(prefix)
    if "METHOD" in named or "TASK" in named:
        if use is None:
            return key
        if (
            use.row is not None
            and stage == "unlearning"
            and use.task not in use.plan.study.methods[use.row.method].length
        ):
            named = named.replace("TASK", DEFAULT)
        named = named.replace("METHOD", use.row.method if use.row else "METHOD").replace("TASK", use.task)
    return named


def _divided(value: Any, factor: float) -> Any:
    """A scaled number as it was before scaling, without the digits that rounding adds."""
    return float(f"{value / factor:.12g}") if isinstance(value, int | float) else value


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, entry in value.items():
            yield from _leaves(entry, f"{key}.{name}" if key else name)
    else:
        yield key, value


def _plain_yaml(value: Any) -> str:
    """A value in YAML's notation, with names as in a study: without quotes."""
    if isinstance(value, list):
        return f"[{', '.join(map(_plain_yaml, value))}]"
    return value if isinstance(value, str) else to_yaml(value)


def _short(value: Any) -> str:
    if isinstance(value, float):
        text = f"{value:.12g}".replace("e-0", "e-").replace("e+0", "e")
    else:
        text = "nothing" if value is None else printable(_plain_yaml(value))
    return text if len(text) <= 60 else f"{text[:57]}..."
