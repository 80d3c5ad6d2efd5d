"""The counts of a probe: how many images of each condition are recognised as the style of their prompt."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from corelib.evaluation.metrics import Count, select_predictions
from corelib.evaluation.predictions import read_predictions
from corelib.evaluation.seed_statistics import pooled
from corelib.reports.count_intervals import interval_name, share_interval
from corelib.reports.jobs_behind import JobProvenance, provenance_of_run
from corelib.runs.manifest import Manifest
from corelib.settings.evaluation import CellsStage
from corelib.settings.probe_report import Condition, ProbedRow, ProbeStage


@dataclass(frozen=True)
class SeedCounts:
    """The counts of one model under one condition.

    Attributes:
        seed: its training seed; None for a model that is not trained here.
        run: the name of its run of the stage `predictions`.
        styles: how many images of each style are recognised as it.
        flagged: number of images that are constant or not finite.
        diverged_at: the step at which the training of the model diverged, if it did.
        search_diverged_at: the step at which the search of the condition diverged, if it did; its result is that of the
            steps before.
        origins: the jobs behind the counts.
    """

    seed: int | None
    run: str
    styles: Mapping[str, Count]
    flagged: int
    diverged_at: int | None
    search_diverged_at: int | None
    origins: Sequence[JobProvenance]

    @property
    def remark(self) -> str:
        """Warnings about the counts; empty if there are none."""
        remarks = []
        if self.diverged_at is not None:
            remarks.append(f"the training of the model diverged at step {self.diverged_at}")
        if self.search_diverged_at is not None:
            remarks.append(f"the search diverged at step {self.search_diverged_at}")
        if self.flagged:
            images = "1 image" if self.flagged == 1 else f"{self.flagged} images"
            remarks.append(f"{images} constant or not finite")
        return "; ".join(remarks)


@dataclass(frozen=True)
class ProbeLine:
    """A row of a probe under one condition, with the counts of each training seed."""

    row: ProbedRow
    condition: Condition
    seeds: Sequence[SeedCounts]

    @property
    def styles(self) -> list[str]:
        """The styles that are counted."""
        return list(self.seeds[0].styles)

    def counts(self, style: str | None = None) -> list[Count]:
        """The count of each seed, of a style or of all together."""
        return [pooled(list(seed.styles.values())) if style is None else seed.styles[style] for seed in self.seeds]

    def interval(self, style: str | None = None) -> tuple[float, float]:
        """The 95 % interval of the share, in percent."""
        return share_interval(self.counts(style))

    @property
    def interval_name(self) -> str:
        """The kind of interval."""
        return interval_name(self.counts())

    @property
    def remark(self) -> str:
        """Warnings about the counts, with the seed if there are several; empty if there are none."""
        if len(self.seeds) == 1:
            return self.seeds[0].remark
        return "; ".join(f"seed {seed.seed}: {seed.remark}" for seed in self.seeds if seed.remark)


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
            yield ProbeLine(row, condition, seeds)


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
    is_right = chosen["predicted_style"] == chosen["style"]
    counted = is_right.groupby(chosen["style"], sort=False).agg(["sum", "size"])
    return SeedCounts(
        seed=seed,
        run=predictions.folder.name,
        styles={str(style): Count(int(row["sum"]), int(row["size"])) for style, row in counted.iterrows()},
        flagged=int(chosen["flagged"].sum()),
        diverged_at=diverged_at,
        search_diverged_at=None if search_diverged_at == diverged_at else search_diverged_at,
        origins=provenance_of_run(predictions),
    )
