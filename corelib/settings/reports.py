"""What tables and figures read besides the cells and images of their rows."""

from __future__ import annotations

from pydantic import PositiveInt

from corelib.settings.section import Section


class TableRow(Section):
    """One line of a table; `cells` is the role under which its evaluated run is an input."""

    task: str
    row: str
    title: str
    cells: str


class TableStage(Section):
    """A table: its lines in the paper's order, and the published numbers they stand beside.

    Attributes:
        published: the numbers of the paper's table of the same rows, if it has one: (task, row, metric, value, k, n).
        comparable: whether accuracies may be tested against the paper's: only in the paper's world.
    """

    name: str
    rows: list[TableRow]
    published: list[list[str]]
    comparable: bool


class FigureStage(Section):
    """A grid of images: rows are prompts, columns are models (role of their samples, and title)."""

    name: str
    rows: list[tuple[str, str]]
    row_titles: list[str]
    columns: list[tuple[str, str]]
    seed: int
    pixels: PositiveInt
