"""The counts of a sequence: what a model has forgotten and retained after each step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from corelib.evaluation.metrics import Count, correct_images, counted_accuracies, select_predictions
from corelib.evaluation.predictions import read_predictions
from corelib.evaluation.seed_statistics import pooled
from corelib.reports.count_intervals import share_interval
from corelib.runs.manifest import Manifest
from corelib.settings.evaluation import CellsStage
from corelib.settings.sequence_report import SequenceRow, SequenceStage, SequenceStep, Way

MEASURES = {"UA new": "UA", "UA earlier": "UA", "IRA": "IRA", "CRA": "CRA"}
"""The accuracy of each measure."""


@dataclass(frozen=True)
class SeedCounts:
    """The counts of one model in one measure.

    Attributes:
        seed: its training seed; None for a model that is not trained here.
        run: the name of its run of the stage `predictions`.
        styles: the count of the images of each style.
        flagged: number of images that are constant or not finite.
        diverged_at: the step at which its training, or that of an earlier task, diverged.
    """

    seed: int | None
    run: str
    styles: Mapping[str, Count]
    flagged: int
    diverged_at: int | None


@dataclass(frozen=True)
class SequenceLine:
    """A measure of the models of a row after a step, with the counts of each training seed."""

    row: SequenceRow
    way: Way
    step: SequenceStep
    measure: str
    seeds: Sequence[SeedCounts]

    def counts(self, style: str | None = None) -> list[Count]:
        """The count of each seed, of a style or of all together."""
        return [pooled(list(seed.styles.values())) if style is None else seed.styles[style] for seed in self.seeds]

    def interval(self, style: str | None = None) -> tuple[float, float]:
        """The 95 % interval of the share, in percent."""
        return share_interval(self.counts(style))

    @property
    def forgotten(self) -> int:
        """Number of styles that the models have forgotten after the step."""
        return len(self.step.new) + len(self.step.earlier)


def sequence_lines(settings: SequenceStage, inputs: Mapping[str, Manifest]) -> Iterator[SequenceLine]:
    """The lines of a sequence, by row, step, way and measure; without measures for which there are no images.

    UA counts the images of forgotten styles that are not recognised as their style, and IRA the images of retain styles
    that are. CRA counts the images of retain styles with the right object: the same images after each step.

    Args:
        settings: the rows and steps.
        inputs: the manifests of predictions, by role.

    Raises `ArtefactError` if the predictions lack an image.
    """
    tables = {role: read_predictions(manifest) for role, manifest in inputs.items()}
    for row in settings.rows:
        for position, step in enumerate(settings.steps):
            for way in row.ways:
                models = row.models[way]
                counted = set.intersection(
                    *(set(counted_accuracies(tables[model.predictions])) for model in models[position])
                )
                for measure, styles in _styles_of_measures(step).items():
                    if not styles or MEASURES[measure] not in counted:
                        continue
                    seeds = [
                        _seed_counts(measure, step, styles, model.seed, inputs[role], tables[role])
                        for model in models[position]
                        for role in [model.predictions]
                    ]
                    yield SequenceLine(row, way, step, measure, seeds)


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
    correct = correct_images(MEASURES[measure], chosen, forget)
    counted = correct.groupby(level="style", sort=False).agg(["sum", "size"])
    return SeedCounts(
        seed=seed,
        run=predictions.folder.name,
        styles={str(style): Count(int(row["sum"]), int(row["size"])) for style, row in counted.iterrows()},
        flagged=int(chosen["flagged"].sum()),
        diverged_at=predictions.facts["diverged_at"],
    )
