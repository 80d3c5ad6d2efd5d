"""The chart of a sequence: each measure over the number of forgotten styles."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from corelib.evaluation.seed_statistics import pooled
from corelib.reports.chart_style import PAGE_WIDTH, add_legend, marks_of, panels
from corelib.reports.sequence_counts import MEASURES, SequenceLine

AXIS_TITLES = {
    "UA new": "UA, styles of the step (%)",
    "UA earlier": "UA, styles of the steps before (%)",
    "IRA": "IRA (%)",
    "CRA": "CRA of retain styles (%)",
}

LINES = {"in sequence": "-", "at once": "--"}
"""The line of each way of forgetting."""


def sequence_chart(lines: Sequence[SequenceLine]) -> Figure:
    """A panel for each measure, with a curve for each row and way, and 95 % intervals."""
    marks = marks_of(list(dict.fromkeys(line.row.plain_title for line in lines)))
    figure, grid = panels(2, 2, (PAGE_WIDTH, 5.4), sharex=True)
    for axis, measure in zip([axis for row in grid for axis in row], MEASURES, strict=True):
        axis.set_ylabel(AXIS_TITLES[measure])
        axis.set_ylim(-3, 103)
        for title in marks:
            for way in LINES:
                found = [
                    line for line in lines if (line.measure, line.row.plain_title, line.way) == (measure, title, way)
                ]
                _draw(axis, found, f"{title}, {way}", marks[title], LINES[way])
    for axis in grid[-1]:
        axis.set_xlabel("styles forgotten")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    add_legend(figure, 3)
    return figure


def _draw(axis: Axes, lines: Sequence[SequenceLine], label: str, mark: tuple[str, str], line_style: str) -> None:
    """Draw a curve with the intervals of its points; nothing if it has no points."""
    if not lines:
        return
    shares = [float(pooled(line.counts()).percent) for line in lines]
    ends = [line.interval() for line in lines]
    colour, marker = mark
    axis.errorbar(
        [line.step.forgotten for line in lines],
        shares,
        yerr=[
            [max(0.0, share - low) for share, (low, _) in zip(shares, ends, strict=True)],
            [max(0.0, high - share) for share, (_, high) in zip(shares, ends, strict=True)],
        ],
        fmt=f"{marker}{line_style}",
        color=colour,
        elinewidth=0.8,
        linewidth=1,
        label=label,
    )
