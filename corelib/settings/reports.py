"""Settings of tables, charts and figures."""

from __future__ import annotations

from pydantic import PositiveInt

from corelib.settings.section import Section


class EvaluatedSeed(Section):
    """An evaluated model of a row.

    Attributes:
        seed: its training seed; None for a model that is not trained here.
        cells: the role of its cells among the inputs.
    """

    seed: int | None
    cells: str


class TableRow(Section):
    """One row of a table for one task, with a model for each training seed.

    Attributes:
        is_original: whether it is the model before unlearning.
        anchors: the anchors of each forget style; empty for a model that is not trained here.
    """

    task: str
    row: str
    title: str
    seeds: list[EvaluatedSeed]
    is_original: bool
    anchors: dict[str, list[str]]

    @property
    def plain_title(self) -> str:
        """The title on one line."""
        return " ".join(self.title.split())


class TableStage(Section):
    """Settings of the stage `tables`: the rows of a table in the paper's order, and the published numbers.

    Attributes:
        published: numbers of the paper's table with the same rows, if it has one: (task, row, metric, value, k, n).
        comparable: whether accuracies may be tested against the paper's; true only in the paper's world.
        note: what the numbers of this world say and do not say, in a sentence below the table; may be empty.
    """

    name: str
    rows: list[TableRow]
    published: list[list[str]]
    comparable: bool
    note: str


class ChartsStage(Section):
    """Settings of the stage `charts`: the rows of a table, the published numbers, and the training runs of its models.

    Attributes:
        trainings: the role of the training run of each model, by the role of its cells.
    """

    name: str
    rows: list[TableRow]
    published: list[list[str]]
    trainings: dict[str, str]


class FigureStage(Section):
    """Settings of the stage `figures`: rows are prompts (style, object), columns are models (input role, title)."""

    name: str
    rows: list[tuple[str, str]]
    row_titles: list[str]
    columns: list[tuple[str, str]]
    seed: int
    pixels: PositiveInt
