"""Settings of the distances between a model and one that was trained without the forget set."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt

from corelib.settings.evaluation import FID
from corelib.settings.prompts import Wording
from corelib.settings.section import Section

DISTANCES_FILE = "distances.json"
"""The file in which the stage `distances` writes its numbers."""


class Distances(Section):
    """How models are compared with a retrained one, in tables that have a row of retrained models.

    Attributes:
        timesteps: the timesteps at which the predicted noise is compared.
        image: index of the training image of each style and object on which the noise is predicted.
    """

    timesteps: list[NonNegativeInt]
    image: PositiveInt


class DistancesStage(Section):
    """Settings of the stage `distances`, which compares two models on one task.

    Attributes:
        distances: where the predicted noise is compared.
        fid: image handling of the FID between the images of the two models.
        forget, retain: the styles that are evaluated.
        objects: the objects of the images on which the noise is predicted.
        grid: the sampled images, as (style, object, seed).
        wording: the wording of the captions with which the first model predicts.
        retrained_wording: that of the retrained model.
        batch: number of latents in a pass.
    """

    distances: Distances
    fid: FID
    forget: list[str]
    retain: list[str]
    objects: list[str]
    grid: list[tuple[str, str, int]]
    wording: Wording
    retrained_wording: Wording
    batch: PositiveInt


class ComparedPair(Section):
    """A model and a retrained one.

    Attributes:
        seed: training seed of the model; None if it has none.
        retrained_seed: training seed of the retrained model.
        distances: the role of their distances among the inputs.
    """

    seed: int | None
    retrained_seed: int
    distances: str


class ComparedRow(Section):
    """A row of a table for one task, with every pair of one of its models and a retrained one."""

    task: str
    row: str
    title: str
    pairs: list[ComparedPair]


class ComparisonStage(Section):
    """Settings of the stage `comparisons`: the rows of a table beside its row of retrained models.

    Attributes:
        name: name of the product.
        rows: the rows, in the order of the table.
        note: what the numbers of this world say and do not say.
    """

    name: str
    rows: list[ComparedRow]
    note: str
