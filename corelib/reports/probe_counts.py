"""The counts of a probe: how many images of each condition are recognised as the style of their prompt."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from corelib.evaluation.metrics import correct_images, select_predictions
from corelib.evaluation.predictions import read_predictions
from corelib.reports.count_lines import CountLine, SeedCounts, counts_by_style
from corelib.reports.jobs_behind import provenance_of_run
from corelib.runs.manifest import Manifest
from corelib.settings.evaluation import CellsStage
from corelib.settings.probe_report import Condition, ProbedRow, ProbeStage


@dataclass(frozen=True)
class ProbeLine(CountLine):
    """A row of a probe under one condition, with the counts of each training seed."""

    row: ProbedRow
    condition: Condition


def probe_lines(settings: ProbeStage, inputs: Mapping[str, Manifest]) -> Iterator[ProbeLine]:
    """The lines of a probe: each row under each condition in which a style of its task is counted.

    Args:
        settings: the rows and conditions.
        inputs: the manifests of predictions and searches, by role.

    Raises `ArtefactError` if the predictions lack an image.
    """
    table_of = functools.cache(lambda role: read_predictions(inputs[role]))
    for row in settings.rows:
        for condition in settings.conditions:
            styles = settings.styles[row.task][condition.name]
            if not styles:
                continue
            cells = CellsStage(
                forget=[], retain=styles, objects=settings.objects[row.task], seeds=settings.seeds[row.task]
            )
            seeds = []
            for model in row.models:
                role = model.predictions[condition.name]
                chosen = select_predictions(table_of(role), cells, styles)
                usual = inputs[model.predictions[settings.conditions[0].name]]
                search = inputs.get(model.searches.get(condition.name, ""))
                seeds.append(_seed_counts(model.seed, inputs[role], chosen, usual, search))
            yield ProbeLine(seeds, row, condition)


def _seed_counts(
    seed: int | None, predictions: Manifest, chosen: pd.DataFrame, usual: Manifest, search: Manifest | None
) -> SeedCounts:
    """The counts of a model under a condition.

    Args:
        seed: its training seed.
        predictions: the predictions of all its images under the condition.
        chosen: those that are counted.
        usual: the predictions under the first condition, in which nothing was searched for.
        search: the run that searched, if one did; a fine-tuned model states the divergence of the model before as well.
    """
    diverged_at = usual.facts["diverged_at"]
    search_diverged_at = None if search is None else search.facts["diverged_at"]
    return SeedCounts(
        seed=seed,
        run=predictions.folder.name,
        styles=counts_by_style(correct_images("IRA", chosen, [])),
        flagged=int(chosen["flagged"].sum()),
        diverged_at=diverged_at,
        search_diverged_at=None if search_diverged_at == diverged_at else search_diverged_at,
        origins=provenance_of_run(predictions),
    )
