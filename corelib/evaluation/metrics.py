"""The paper's metrics: UA, IRA and CRA are k of n, SFID is a ratio of distances, Total the sum of rounded values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from statistics import NormalDist
from typing import Any

import pandas as pd

from corelib.errors import ArtefactError
from corelib.evaluation.predictions import PREDICTIONS, is_judged, read_predictions, write_predictions
from corelib.files.json_files import write_json
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.evaluation import CellsStage

ACCURACIES = ("UA", "IRA", "CRA")

JUDGED = {"UA": "style", "IRA": "style", "CRA": "object"}
"""What a classifier must recognise for an accuracy to be counted."""

CELLS = "cells.json"

FID_ROLES = ("fid", "fid_of_original")
"""The inputs of cells with Frechet distances; a world without a network for FID has none."""


@dataclass(frozen=True)
class Count:
    """An accuracy: k of n images."""

    k: int
    n: int

    @property
    def percent(self) -> Decimal:
        """100 k / n, rounded half up to two decimals as the paper prints it."""
        return round_half_up(Fraction(100 * self.k, self.n))

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The Wilson score interval of k / n in percent."""
        z = NormalDist().inv_cdf(0.5 + confidence / 2)
        share, spread = self.k / self.n, z * z / self.n
        centre = (share + spread / 2) / (1 + spread)
        half = z / (1 + spread) * math.sqrt(share * (1 - share) / self.n + spread / (4 * self.n))
        return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def round_half_up(value: Fraction | float) -> Decimal:
    """A number rounded half up to two decimals; a float is taken at its exact binary value."""
    exact = Fraction(value)
    hundredths = Decimal(exact.numerator * 100) / Decimal(exact.denominator)
    return hundredths.quantize(Decimal(1), ROUND_HALF_UP).scaleb(-2)


def total(values: Iterable[Decimal]) -> Decimal:
    """The paper's Total: the sum of the four metrics, each rounded to two decimals first."""
    return sum(values, Decimal(0)).quantize(Decimal("0.01"))


def scaled_fid(fid_of_original: float, fid: float) -> float:
    """Equation 7: min(100 FID_0 / FID_M, 100)."""
    return 100.0 if fid <= fid_of_original else 100.0 * fid_of_original / fid


def select_predictions(predictions: pd.DataFrame, cells: CellsStage, styles: Sequence[str]) -> pd.DataFrame:
    """The predictions for the images of `styles` on a task's grid, one row per image.

    Raises `ArtefactError` if an image is missing or occurs twice, since either would change a metric.
    """
    grid = [(style, object_, seed) for style in styles for object_ in cells.objects for seed in cells.seeds]
    by_image = predictions.set_index(["style", "object", "seed"])
    known = set(by_image.index)
    if missing := [image for image in grid if image not in known]:
        raise ArtefactError(f"the predictions lack the image {missing[0]}, expected every image of the grid.")
    if len(known) < len(by_image):
        repeated = by_image.index[by_image.index.duplicated()][0]
        raise ArtefactError(f"the predictions have the image {repeated} twice, expected every image once.")
    return by_image.loc[grid].reset_index()


def correct_images(metric: str, grid: pd.DataFrame, forget: Sequence[str]) -> pd.Series[bool]:
    """Which of the images that a metric counts are right in its sense, by (style, object, seed).

    Args:
        metric: one of `ACCURACIES`.
        grid: the predictions for a task's grid.
        forget: the forget styles of the task.
    """
    by_image = grid.set_index(["style", "object", "seed"])
    is_forget = by_image.index.get_level_values("style").isin(list(forget))
    if metric == "CRA":
        return by_image["predicted_object"] == by_image.index.get_level_values("object")
    is_style = by_image["predicted_style"] == by_image.index.get_level_values("style")
    return ~is_style[is_forget] if metric == "UA" else is_style[~is_forget]


def counted_accuracies(predictions: pd.DataFrame) -> list[str]:
    """The accuracies that predictions decide: those of `ACCURACIES` for whose label the world has a classifier."""
    return [metric for metric in ACCURACIES if is_judged(predictions, JUDGED[metric])]


def count_metrics(predictions: pd.DataFrame, cells: CellsStage) -> dict[str, Count]:
    """UA, IRA and CRA on a task's grid; without those for which the world has no classifier.

    UA counts images prompted with a forget style that are not classified as that style. IRA counts images prompted
    with a retain style that are. CRA counts images of the whole grid, forget styles included, that are classified as
    the prompted object.
    """
    return count_correct(select_predictions(predictions, cells, [*cells.forget, *cells.retain]), cells.forget)


def count_correct(grid: pd.DataFrame, forget: Sequence[str]) -> dict[str, Count]:
    """UA, IRA and CRA of all images of a table of predictions, given the forget styles; without those not decided."""
    correct = {metric: correct_images(metric, grid, forget) for metric in counted_accuracies(grid)}
    return {metric: Count(int(images.sum()), len(images)) for metric, images in correct.items()}


def count_cells(settings: CellsStage, context: StageContext) -> StageResult:
    """Stage: write the numbers of one model on one task, and the predictions for the images of the task's grid."""
    predictions = read_predictions(context.inputs["predictions"])
    counts = count_metrics(predictions, settings)
    fids = [float(context.inputs[role].facts["fid"]) if role in context.inputs else None for role in FID_ROLES]
    grid = select_predictions(predictions, settings, [*settings.forget, *settings.retain])
    cells: Mapping[str, Any] = {
        **{name: {"k": count.k, "n": count.n} for name, count in counts.items()},
        **dict(zip(("FID", "FID_of_original"), fids, strict=True)),
        "flagged": int(grid["flagged"].sum()),
        "diverged_at": context.inputs["predictions"].facts["diverged_at"],
        "forget": settings.forget,
    }
    write_json(context.folder / CELLS, cells)
    write_predictions(grid, context.folder / PREDICTIONS)
    return StageResult([CELLS, PREDICTIONS], cells)
