"""The counts of a probe: how many images of each condition are recognised as the style of their prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from corelib.evaluation.metrics import Count, select_predictions
from corelib.evaluation.predictions import read_predictions
from corelib.evaluation.seed_statistics import pooled
from corelib.reports.count_intervals import interval_name, share_interval
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
        diverged_at: the step at which a training diverged, if one did.
    """

    seed: int | None
    run: str
    styles: Mapping[str, Count]
    flagged: int
    diverged_at: int | None


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
        """Warnings about the counts; empty if there are none."""
        diverged = [seed.diverged_at for seed in self.seeds if seed.diverged_at is not None]
        flagged = sum(seed.flagged for seed in self.seeds)
        remarks = [f"diverged at step {step}" for step in diverged]
        return "; ".join([*remarks, *([f"{flagged} images constant or not finite"] if flagged else [])])


def probe_lines(settings: ProbeStage, inputs: Mapping[str, Manifest]) -> Iterator[ProbeLine]:
    """The lines of a probe: each row under each condition in which a style of its task is counted.

    Args:
        settings: the rows and conditions.
        inputs: the manifests of predictions, by role.

    Raises `ArtefactError` if the predictions lack an image.
    """
    tables = {role: read_predictions(manifest) for role, manifest in inputs.items()}
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
                chosen = select_predictions(tables[role], cells, styles)
                seeds.append(_seed_counts(model.seed, inputs[role], chosen))
            yield ProbeLine(row, condition, seeds)


def _seed_counts(seed: int | None, predictions: Manifest, chosen: pd.DataFrame) -> SeedCounts:
    is_right = chosen["predicted_style"] == chosen["style"]
    counted = is_right.groupby(chosen["style"], sort=False).agg(["sum", "size"])
    return SeedCounts(
        seed=seed,
        run=predictions.folder.name,
        styles={str(style): Count(int(row["sum"]), int(row["size"])) for style, row in counted.iterrows()},
        flagged=int(chosen["flagged"].sum()),
        diverged_at=predictions.facts["diverged_at"],
    )
