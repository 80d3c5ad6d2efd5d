"""The chart of confusion: as which style the images of each style are recognised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from corelib.reports.chart_style import MAP, PAGE_WIDTH, panels
from corelib.reports.table_lines import TableLine, by_task

FIELD, MATRIX = 0.13, 1.3
"""Minimum size of a field and of a matrix, in inches; the name of a style fits beside a field at `LABEL_SIZE`."""

LABEL_SIZE = 6

LABEL_LENGTH = 1.0
"""Height of the names of styles below a matrix, in inches."""

MAX_COLUMNS, MAX_WIDTH = 4, 14.0
"""Maximum number of matrices side by side, and the width that all of them may take, in inches."""


def confusion_chart(lines: Sequence[TableLine]) -> Figure:
    """A matrix for each row of the table: prompted style by recognised style, as shares of the images of a style.

    The forget styles are above a line. A forget style that has become its anchor has one bright field off the
    diagonal. Images of all training seeds are counted together.
    """
    tasks = by_task(lines)
    styles = {task: _styles(task_lines) for task, task_lines in tasks.items()}
    widths = {task: max(MATRIX, FIELD * len(names)) for task, names in styles.items()}
    most = max(len(task_lines) for task_lines in tasks.values())
    columns = max(1, min(MAX_COLUMNS, most, int(MAX_WIDTH / max(widths.values()))))
    blocks = [
        (task, task_lines[start : start + columns])
        for task, task_lines in tasks.items()
        for start in range(0, len(task_lines), columns)
    ]
    heights = [max(MATRIX, FIELD * len(_prompted(block[0]))) + LABEL_LENGTH + 0.3 for _, block in blocks]
    width = max(PAGE_WIDTH, LABEL_LENGTH + 1.0 + columns * (0.2 + max(widths.values())))
    figure, grid = panels(len(blocks), columns, (width, sum(heights) + 0.3), height_ratios=heights)
    for axes, (task, block) in zip(grid, blocks, strict=True):
        names = [style.replace("_", " ") for style in styles[task]]
        for axis, line in zip(axes, block, strict=False):
            image = axis.imshow(
                _shares(line, styles[task]), cmap=MAP, vmin=0, vmax=1, aspect="auto", interpolation="nearest"
            )
            axis.set_title(f"{task}, {line.row.plain_title}", fontsize=7)
            axis.axhline(len(line.seeds[0].forget) - 0.5, color="white", linewidth=1)
            axis.set_xticks(range(len(names)), names, rotation=90, fontsize=LABEL_SIZE)
            prompted = range(len(_prompted(line)))
            axis.set_yticks(prompted, names[: len(prompted)] if axis is axes[0] else [], fontsize=LABEL_SIZE)
            axis.grid(visible=False)
            axis.tick_params(length=0)
        axes[0].set_ylabel("prompted")
        for axis in axes[len(block) :]:
            axis.set_axis_off()
    figure.supxlabel("recognised", fontsize=8)
    figure.colorbar(image, ax=[axis for row in grid for axis in row], shrink=0.4, label="share of the images")
    return figure


def _prompted(line: TableLine) -> list[str]:
    """The styles of a task's grid, forget styles first."""
    return sorted(map(str, dict.fromkeys(line.seeds[0].grid["style"])), key=line.seeds[0].set_of)


def _styles(task_lines: Sequence[TableLine]) -> list[str]:
    """The styles of a task's grid, then those that occur only as predictions."""
    prompted = _prompted(task_lines[0])
    predicted = {style for line in task_lines for numbers in line.seeds for style in numbers.grid["predicted_style"]}
    return prompted + sorted(map(str, predicted - set(prompted)))


def _shares(line: TableLine, styles: Sequence[str]) -> np.ndarray:
    """The share of the images of each prompted style that are recognised as each style, (prompted, styles)."""
    place = {style: number for number, style in enumerate(styles)}
    counts = np.zeros((len(_prompted(line)), len(styles)))
    for numbers in line.seeds:
        for style, recognised in zip(numbers.grid["style"], numbers.grid["predicted_style"], strict=True):
            counts[place[style], place[recognised]] += 1
    shares: np.ndarray = counts / counts.sum(axis=1, keepdims=True)
    return shares
