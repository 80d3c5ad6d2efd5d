"""A study whose models are not trained: predictions are random, and the real stages count and write its products."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from support import records

from corelib.evaluation.metrics import count_cells
from corelib.evaluation.predictions import PREDICTIONS, write_predictions
from corelib.files.hashing import sha256_of_path
from corelib.files.json_files import write_json
from corelib.files.sealed_json import write_record
from corelib.reports.comparisons import compare
from corelib.reports.probe_report import report_probe
from corelib.reports.sequence_report import report_sequence
from corelib.reports.study_report import write_report
from corelib.reports.tables import tabulate
from corelib.runs.layout import RESULTS, SPECIFICATION
from corelib.runs.manifest import Manifest, manifest_content, read_manifest
from corelib.runs.provenance_record import provenance_path
from corelib.runs.run import Run
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.distances import DISTANCES_FILE, DistancesStage
from corelib.settings.probes import ResampledStage
from corelib.settings.sampling import SamplesStage
from corelib.study.plan import Plan

PRODUCT_STAGES: Mapping[str, Callable[[Any, StageContext], StageResult]] = {
    "tables": tabulate,
    "comparisons": compare,
    "probes": report_probe,
    "sequences": report_sequence,
    "reports": write_report,
}

Facts = Mapping[str, Mapping[str, Any]]


def build_runs(runs: Iterable[Run], styles: list[str], facts: Facts | None = None) -> None:
    """Make runs and all that they build on complete in `runs/`.

    Args:
        runs: the runs.
        styles: the styles as which images are recognised.
        facts: facts in the manifests of some runs, by the beginning of their names.
    """
    for run in runs:
        for needed in _in_order(run):
            if not needed.manifest.exists():
                needed.folder.mkdir(parents=True)
                write_record(needed.folder / SPECIFICATION, needed.specification)
                outcome = _outcome(needed, styles)
                chosen = [found for name, found in (facts or {}).items() if needed.name.startswith(name)]
                own = {**outcome.facts, **{key: value for found in chosen for key, value in found.items()}}
                _write_records(needed.manifest, needed, outcome.files, own, [])


def build_products(plan: Plan, names: Iterable[str], facts: Facts | None = None) -> None:
    """Write products of a study to `results/`, and all runs on which they build to `runs/`."""
    place = RESULTS / plan.name
    place.mkdir(parents=True, exist_ok=True)
    for name in names:
        run = plan.products()[name]
        build_runs(run.inputs.values(), plan.study.world.styles, facts)
        write_record(run.folder / SPECIFICATION, run.specification)
        outcome = PRODUCT_STAGES[run.stage](run.settings, StageContext(place, run.digest, _manifests(run)))
        _write_records(place / f"{name}.json", run, outcome.files, outcome.facts, outcome.records)


def _in_order(run: Run) -> list[Run]:
    """The runs behind a run and the run itself, in the order in which data flows."""
    found: dict[str, Run] = {}
    for needed in run.inputs.values():
        found |= {one.name: one for one in _in_order(needed)}
    return [*found.values(), run]


def _manifests(run: Run) -> dict[str, Manifest]:
    return {role: read_manifest(needed.manifest) for role, needed in run.inputs.items()}


def _outcome(run: Run, styles: list[str]) -> StageResult:
    """What the run of a stage that is not a product would have written."""
    draws = random.Random(run.name)
    match run.stage:
        case "predictions":
            samples = run.inputs["samples"]
            write_predictions(_predictions(samples, styles, draws), run.folder / PREDICTIONS)
            return StageResult([PREDICTIONS], {"diverged_at": _manifests(run)["samples"].facts["diverged_at"]})
        case "samples" if "delta" in run.inputs:
            return StageResult([], {"diverged_at": _manifests(run)["delta"].facts["diverged_at"]})
        case "cells":
            return count_cells(run.settings, StageContext(run.folder, run.digest, _manifests(run)))  # type: ignore[arg-type]
        case "fid":
            return StageResult([], {"fid": draws.uniform(10, 50)})
        case "distances":
            assert isinstance(run.settings, DistancesStage)
            noise = [draws.random() for _ in run.settings.distances.timesteps]
            agreement = {"style": 3, "object": 4, "both": 2, "n": 6}
            sets = {name: {"agreement": agreement, "fid": 12.5, "noise": noise} for name in ("forget", "retain")}
            timesteps = run.settings.distances.timesteps
            write_json(run.folder / DISTANCES_FILE, {"timesteps": timesteps, "sets": sets})
            return StageResult([DISTANCES_FILE])
        case _:
            return StageResult([], {"diverged_at": None})


def _predictions(samples: Run, styles: list[str], draws: random.Random) -> pd.DataFrame:
    settings = samples.settings.samples if isinstance(samples.settings, ResampledStage) else samples.settings
    assert isinstance(settings, SamplesStage)
    return pd.DataFrame(
        {
            "style": [style for style, _, _ in settings.grid],
            "object": [object_ for _, object_, _ in settings.grid],
            "seed": [seed for _, _, seed in settings.grid],
            "predicted_style": [draws.choice([style, draws.choice(styles)]) for style, _, _ in settings.grid],
            "predicted_object": [object_ for _, object_, _ in settings.grid],
            "flagged": False,
        }
    )


def _write_records(path: Path, run: Run, files: list[str], facts: Mapping[str, Any], recorded: list[str]) -> None:
    manifest = manifest_content(path.parent, run.stage, run.digest, files, facts, {}, {})
    hashes = {file: sha256_of_path(path.parent / file) for file in recorded}
    write_record(provenance_path(path), records.provenance(run.specification, manifest, records=hashes))
    write_record(path, manifest)
