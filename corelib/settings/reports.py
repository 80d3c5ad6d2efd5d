"""Settings of tables and figures."""

from __future__ import annotations

from pydantic import PositiveInt

from corelib.settings.section import Section


class TableRow(Section):
    """One row of a table; `cells` is the role of its evaluated run among the inputs."""

    task: str
    row: str
    title: str
    cells: str


class TableStage(Section):
    """Settings of the stage `tables`: the rows of a table in the paper's order, and the published numbers.

    Attributes:
        published: numbers of the paper's table with the same rows, if it has one: (task, row, metric, value, k, n).
        comparable: whether accuracies may be tested against the paper's; true only in the paper's world.
    """

    name: str
    rows: list[TableRow]
    published: list[list[str]]
    comparable: bool


class FigureStage(Section):
    """Settings of the stage `figures`: rows are prompts (style, object), columns are models (input role, title)."""

    name: str
    rows: list[tuple[str, str]]
    row_titles: list[str]
    columns: list[tuple[str, str]]
    seed: int
    pixels: PositiveInt
