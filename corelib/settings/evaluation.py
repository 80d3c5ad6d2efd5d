"""Settings of classification, FID and the cells of a table."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from corelib.settings.section import Section

LABELS = ("style", "object")
"""What classifiers recognise."""


class Classification(Section):
    """Batch size of the two classifiers.

    Attributes:
        batch: number of images that are classified together.
    """

    batch: PositiveInt


class FID(Section):
    """Frechet distance between sampled and real images of the retain cells.

    Attributes:
        mode: image handling. "clean" and "legacy_tensorflow" are clean-fid's modes; "clean" resizes in floating point
            with anti-aliasing. "benchmark" is the image handling of UnlearnCanvas' own evaluator.
        reference_images: indices of the real images of each retain cell.
        batch: number of images whose features are computed together.
    """

    mode: Literal["clean", "legacy_tensorflow", "benchmark"]
    reference_images: list[PositiveInt]
    batch: PositiveInt


class PredictionsStage(Section):
    """Settings of the stage `predictions`."""

    classification: Classification


class ReferenceStage(Section):
    """Settings of the stage `reference`: the real images whose features are the reference of FID."""

    fid: FID
    styles: list[str]
    objects: list[str]


class FIDStage(Section):
    """Settings of the stage `fid`: the sampled images of one task's retain cells, compared with the reference."""

    fid: FID
    grid: list[tuple[str, str, int]]


class CellsStage(Section):
    """Settings of the stage `cells`: the evaluation grid of one task."""

    forget: list[str]
    retain: list[str]
    objects: list[str]
    seeds: list[int]
