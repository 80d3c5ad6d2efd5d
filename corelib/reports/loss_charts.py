"""The chart of training: the loss terms of each training run, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from corelib.reports.chart_style import COLOURS, PAGE_WIDTH, add_legend, panels
from corelib.reports.table_lines import TableLine, by_task
from corelib.runs.manifest import Manifest
from corelib.unlearning.training_file import read_training

TERMS = {"unlearn": ("unlearning term L_f", COLOURS[1]), "retain": ("retention term L_r", COLOURS[0])}

COLUMNS = 3

WINDOW_SHARE = 0.02
"""Share of the steps over which the drawn line is averaged."""


def loss_chart(lines: Sequence[TableLine], trainings: Mapping[str, Manifest]) -> Figure:
    """The terms of equation 4 over the steps, in a panel for each trained row; a line for each seed.

    Args:
        lines: the lines of the table.
        trainings: the manifest of the training run behind each seed of a line, by the role of its cells. Lines whose
            training is not there, such as that of the original model, are omitted.
    """
    trained = [
        (task, line)
        for task, found in by_task(lines).items()
        for line in found
        if all(seed.cells in trainings for seed in line.row.seeds)
    ]
    rows = max(1, -(-len(trained) // COLUMNS))
    figure, grid = panels(rows, COLUMNS, (PAGE_WIDTH, 0.4 + 1.35 * rows))
    axes = [axis for row in grid for axis in row]
    for axis, (task, line) in zip(axes, trained, strict=False):
        axis.set_title(f"{task}, {line.row.plain_title}")
        for seed in line.row.seeds:
            _draw_terms(axis, trainings[seed.cells])
    for axis in axes[len(trained) :]:
        axis.set_axis_off()
    for axis in axes[max(0, len(trained) - COLUMNS) : len(trained)]:
        axis.set_xlabel("step")
    for row in grid:
        row[0].set_ylabel("loss")
    add_legend(figure, 2)
    return figure


def _draw_terms(axis: Axes, training: Manifest) -> None:
    values = read_training(training)
    steps = values["step"]
    window = max(1, round(WINDOW_SHARE * len(steps)))
    for name, (label, colour) in TERMS.items():
        term = values[name].astype(float)
        if not term.any():  # an objective without this term
            continue
        means = np.convolve(term, np.ones(window) / window, mode="valid")
        axis.plot(steps[window - 1 :], means, color=colour, linewidth=0.9, alpha=0.8, label=label)
