"""The counts of a sequence: what a model has forgotten and retained after each step."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from corelib.evaluation.metrics import correct_images, counted_accuracies, select_predictions
from corelib.evaluation.predictions import read_predictions
from corelib.reports.count_lines import CountLine, SeedCounts, counts_by_style
from corelib.reports.jobs_behind import provenance_of_run
from corelib.runs.manifest import Manifest
from corelib.settings.evaluation import CellsStage
from corelib.settings.sequence_report import SequenceRow, SequenceStage, SequenceStep, Way

MEASURES = {"UA new": "UA", "UA earlier": "UA", "IRA": "IRA", "CRA": "CRA"}
"""The accuracy of each measure."""


@dataclass(frozen=True)
class SequenceLine(CountLine):
    """A measure of the models of a row after a step, with the counts of each training seed.

    Attributes:
        task: the task whose models these are: that of the step, or the one that forgets at once.
    """

    row: SequenceRow
    way: Way
    step: SequenceStep
    task: str
    measure: str


def sequence_lines(settings: SequenceStage, inputs: Mapping[str, Manifest]) -> Iterator[SequenceLine]:
    """The lines of a sequence, by row, step, way and measure; without measures for which there are no images.

    UA counts the images of forgotten styles that are not recognised as their style, and IRA the images of retain styles
    that are. CRA counts the images of retain styles with the right object: the same images after each step.

    Args:
        settings: the rows and steps.
        inputs: the manifests of predictions, by role.

    Raises `ArtefactError` if the predictions lack an image.
    """
    table_of = functools.cache(lambda role: read_predictions(inputs[role]))
    for row in settings.rows:
        for position, step in enumerate(settings.steps):
            for way in row.ways:
                models = row.models[way]
                counted = set.intersection(
                    *(set(counted_accuracies(table_of(model.predictions))) for model in models[position])
                )
                for measure, styles in _styles_of_measures(step).items():
                    if not styles or MEASURES[measure] not in counted:
                        continue
                    seeds = [
                        _seed_counts(measure, step, styles, model.seed, inputs[role], table_of(role))
                        for model in models[position]
                        for role in [model.predictions]
                    ]
                    yield SequenceLine(seeds, row, way, step, settings.tasks[way][position], measure)


def _styles_of_measures(step: SequenceStep) -> dict[str, list[str]]:
    return dict(zip(MEASURES, (step.new, step.earlier, step.retain, step.retain), strict=True))


def _seed_counts(
    measure: str,
    step: SequenceStep,
    styles: Sequence[str],
    seed: int | None,
    predictions: Manifest,
    table: pd.DataFrame,
) -> SeedCounts:
    forget = [*step.new, *step.earlier]
    grid = CellsStage(forget=forget, retain=step.retain, objects=step.objects, seeds=step.seeds)
    chosen = select_predictions(table, grid, styles)
    return SeedCounts(
        seed=seed,
        run=predictions.folder.name,
        styles=counts_by_style(correct_images(MEASURES[measure], chosen, forget)),
        flagged=int(chosen["flagged"].sum()),
        diverged_at=predictions.facts["diverged_at"],
        search_diverged_at=None,
        origins=provenance_of_run(predictions),
    )
