"""A study, typed: the whole of `config/config.yaml` after an overlay, and every check that needs more than one leaf.

The sections that stages read live in `corelib.settings`; here they are put together and related to each other.
Loading and merging the files is `corelib.study.loading`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from corelib.runs.specification import Execution
from corelib.settings.data import Encoding
from corelib.settings.evaluation import FID, Classification
from corelib.settings.miniature import Autoencoder, Classifier, Denoiser, TextEncoder
from corelib.settings.precision import TrainingPrecision
from corelib.settings.prompts import Prompts
from corelib.settings.sampling import Sampling
from corelib.settings.section import Section
from corelib.settings.trainable import Trained
from corelib.settings.unlearn_canvas import Assets
from corelib.settings.unlearning import Adam, Length, Objective, Saliency

ORIGINAL = "original"
"""The row of the model before any unlearning."""

Scheme = Literal["one_to_one", "all_to_one", "five_to_one", "one_to_all", "one_to_five", "empty"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
"""What a style, object, task, method or table may be called: names become parts of paths."""

MOST_NAMES = 1_000
"""Styles or objects of a world, and rows or tasks of a table; the paper's have 51, 20, 9 and 3."""


class UnlearnCanvasWorld(Section):
    """The paper's world: the user's assets."""

    kind: Literal["unlearn_canvas"]
    styles: list[str] = Field(max_length=MOST_NAMES)
    objects: list[str] = Field(max_length=MOST_NAMES)
    images_per_cell: PositiveInt
    assets: Assets


class MiniatureWorld(Section):
    """A world that renders its own benchmark and trains its own models, or takes those that the repository ships."""

    kind: Literal["miniature"]
    pretrained: bool
    styles: list[str] = Field(max_length=MOST_NAMES)
    objects: list[str] = Field(max_length=MOST_NAMES)
    images_per_cell: PositiveInt
    seed: int = Field(ge=0)
    resolution: PositiveInt
    jpeg_quality: int = Field(ge=1, le=100)
    autoencoder: Autoencoder
    text_encoder: TextEncoder
    denoiser: Denoiser
    classifier: Classifier


World = Annotated[UnlearnCanvasWorld | MiniatureWorld, Field(discriminator="kind")]


class Evaluation(Section):
    """Which images judge a task: every listed style x object x seed."""

    retain: list[str]
    objects: Literal["all"] | list[str]
    seeds: list[NonNegativeInt] = Field(min_length=1)


class Task(Section):
    """What is forgotten, what is held on to, and what is looked at afterwards.

    Attributes:
        forget: the forget styles, in the order in which anchors are paired with them.
        retain: the training retain set D_r: "rest" is every style that is not forgotten, "evaluated" the retain styles
            of the evaluation, or a list, which may name the photos alone.
        photos_in_retain: whether the photos also belong to D_r, captioned `prompts.photo_in_training`.
        objects: the objects of the training images.
    """

    forget: list[str] = Field(min_length=1)
    retain: Literal["rest", "evaluated"] | list[str]
    photos_in_retain: bool
    objects: Literal["all"] | list[str]
    evaluation: Evaluation


class Anchoring(Section):
    """How the schemes of Table 4 choose alternative concepts (protocol, section 6).

    Attributes:
        base: the base style of all-to-one: "first_retain", a style, the photos included, or "" for the empty prompt.
        group: the size of the groups of five-to-one and one-to-five.
        draw: where a scheme is random, whether every pair of a step draws its own anchor or a step draws one.
        one_to_one: "in_order", or an explicit mapping from forget style to anchor style.
    """

    base: str
    group: PositiveInt
    draw: Literal["pair", "step"]
    one_to_one: Literal["in_order"] | dict[str, str]


class Scale(Section):
    """What a model of another size does to every method alike: its learning rate and its length are multiplied.

    Attributes:
        least_steps: no run is shorter, whatever its scaled length.
    """

    learning_rate: PositiveFloat
    length: PositiveFloat
    least_steps: PositiveInt


class TrainingProtocol(Section):
    """What all unlearning runs share."""

    images: list[PositiveInt] = Field(min_length=1)
    epoch_counts: Literal["forget", "both"]
    reduction: Literal["mean", "sum"]
    optimizer: Adam
    scale: Scale
    precision: TrainingPrecision
    seed: int = Field(ge=0)


class Method(Section):
    """One way of unlearning: an entry of this kind is all that a new method needs."""

    title: str
    objective: Objective
    saliency: Saliency | None
    trained: Trained
    learning_rate: PositiveFloat
    batch: PositiveInt
    length: dict[str, Length]
    anchors: dict[str, Scheme]


class Row(Section):
    """A row of a table that departs from its method's own anchors or title."""

    name: str
    method: str
    anchors: Scheme | None = None
    title: str | None = None


class Table(Section):
    """A table is a query over runs: for each task, the named rows."""

    tasks: list[str] = Field(min_length=1, max_length=MOST_NAMES)
    rows: list[str | Row] = Field(min_length=1, max_length=MOST_NAMES)
    published: str | None


class Figure(Section):
    """A grid of sampled images: rows are prompts, columns are methods, all of one task and one seed."""

    task: str
    prompts: list[list[str]] = Field(min_length=1)
    columns: list[str | Row] = Field(min_length=1)
    seed: NonNegativeInt
    pixels: PositiveInt


class Threads(Section):
    """CPU threads per stage; results are equal to the bit only at equal thread counts."""

    world: PositiveInt
    unlearning: PositiveInt
    sampling: PositiveInt
    evaluation: PositiveInt


class Study(Section):
    """Everything that decides a set of tables and figures."""

    world: World
    prompts: Prompts
    tasks: dict[str, Task]
    training: TrainingProtocol
    encoding: Encoding
    anchoring: Anchoring
    methods: dict[str, Method]
    sampling: Sampling
    classification: Classification
    fid: FID
    gate: Literal["stop", "warn"] | None
    tables: dict[str, Table]
    figures: dict[str, Figure]
    threads: Threads
    execution: Execution

    # What the leaves say, spelt out

    @property
    def takes_shipped_world(self) -> bool:
        """Whether the models are those that the repository ships."""
        return self.world.kind == "miniature" and self.world.pretrained

    def objects_of(self, objects: Literal["all"] | list[str]) -> list[str]:
        """The objects that a leaf names, in label order."""
        return self.world.objects if objects == "all" else sorted(objects, key=self.world.objects.index)

    def styles_in_label_order(self, styles: list[str]) -> list[str]:
        """The same styles in the order of the classifier's classes."""
        return sorted(styles, key=self.world.styles.index)

    def retain_styles(self, task: Task) -> list[str]:
        """The styles of D_r from which anchors may be chosen, in label order; the photos are never among them."""
        if task.retain == "rest":
            styles = [style for style in self.world.styles if style not in task.forget]
        elif task.retain == "evaluated":
            styles = task.evaluation.retain
        else:
            styles = task.retain
        return [style for style in self.styles_in_label_order(styles) if style != self.prompts.photo_style]

    def retain_set(self, task: Task) -> list[str]:
        """All styles of D_r, the photos included if the task says so, or has them alone."""
        photos = [self.prompts.photo_style]
        included = task.photos_in_retain or task.retain == photos
        return self.styles_in_label_order(self.retain_styles(task) + (photos if included else []))

    def rows_of(self, rows: list[str | Row]) -> list[Row]:
        """Rows written as a method's name alone, spelt out."""
        return [Row(name=row, method=row) if isinstance(row, str) else row for row in rows]

    def title_of(self, row: Row) -> str:
        """What a row is called in a table or figure."""
        if row.title is not None:
            return row.title
        return "Original" if row.method == ORIGINAL else self.methods[row.method].title
