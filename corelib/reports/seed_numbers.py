"""The numbers of one model for one task, from its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

import pandas as pd

from corelib.evaluation.metrics import ACCURACIES, CELLS, Count, correct_images, round_half_up, scaled_fid, total
from corelib.evaluation.predictions import read_predictions
from corelib.files.json_files import read_json
from corelib.reports.jobs_behind import FID, FID_OF_ORIGINAL, PREDICTIONS, JobProvenance, provenance_of_cells
from corelib.reports.remarks import remark_on
from corelib.runs.manifest import Manifest

METRICS = (*ACCURACIES, "SFID", "Total")

METRIC_INPUTS = {**dict.fromkeys(ACCURACIES, (PREDICTIONS,)), "SFID": (FID, FID_OF_ORIGINAL)}
"""The inputs of the cells that decide a metric; Total depends on all of them."""


@dataclass(frozen=True)
class SeedNumbers:
    """The numbers of one model.

    Attributes:
        seed: its training seed; None for the original model.
        run: the name of its run of the stage `cells`.
        counts: the accuracies that the world's classifiers decide.
        sfid: its SFID, rounded as in the paper; None if the world has no network for FID.
        grid: the predictions for the images of the task's grid (`corelib.evaluation.predictions`).
        forget: the forget styles of the task.
        diverged_at: the step at which its training diverged, if it did.
        flagged: number of its images that are constant or not finite.
        origins: the jobs that contributed to its numbers, by input of the cells.
    """

    seed: int | None
    run: str
    counts: Mapping[str, Count]
    sfid: Decimal | None
    grid: pd.DataFrame
    forget: Sequence[str]
    diverged_at: int | None
    flagged: int
    origins: Mapping[str, list[JobProvenance]]

    @cached_property
    def correct(self) -> dict[str, pd.Series[bool]]:
        """Which images are right in the sense of each accuracy, by (style, object, seed)."""
        return {metric: correct_images(metric, self.grid, self.forget) for metric in self.counts}

    def set_of(self, style: str) -> str:
        """The set to which a style of the grid belongs: `forget` or `retain`."""
        return "forget" if style in self.forget else "retain"

    @property
    def values(self) -> dict[str, Decimal]:
        """The value of each metric that is measured, rounded as in the paper; Total is the sum of the others."""
        values = {name: count.percent for name, count in self.counts.items()}
        if self.sfid is not None:
            values["SFID"] = self.sfid
        return values | ({"Total": total(values.values())} if values else {})

    @property
    def remark(self) -> str:
        """Warnings about the numbers; empty if there are none."""
        return remark_on({"": self.diverged_at}, self.flagged)

    def jobs_behind(self, metric: str) -> list[JobProvenance]:
        """The jobs that contributed to the value of a metric, without repetition."""
        roles = METRIC_INPUTS.get(metric, tuple(self.origins))
        return list(dict.fromkeys(origin for role in roles for origin in self.origins[role]))


def seed_numbers(seed: int | None, cells: Manifest) -> SeedNumbers:
    """The numbers of a model, from its cells.

    Args:
        seed: its training seed; None for the original model.
        cells: the manifest of its cells.
    """
    numbers = read_json(cells.file(CELLS))
    fid, fid_of_original = numbers["FID"], numbers["FID_of_original"]
    return SeedNumbers(
        seed=seed,
        run=cells.folder.name,
        counts={name: Count(**numbers[name]) for name in ACCURACIES if name in numbers},
        sfid=None if fid is None else round_half_up(scaled_fid(fid_of_original, fid)),
        grid=read_predictions(cells),
        forget=numbers["forget"],
        diverged_at=numbers["diverged_at"],
        flagged=numbers["flagged"],
        origins=provenance_of_cells(cells),
    )
