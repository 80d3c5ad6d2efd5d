"""The chart of a probe: the share of images in which a style is recognised, under each condition."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from corelib.evaluation.seed_statistics import pooled
from corelib.reports.chart_style import PAGE_WIDTH, add_legend, marks_of, panels
from corelib.reports.probe_counts import ProbeLine

AXES = {
    "partial_diffusion": "share of the sampling steps taken",
    "relearning": "training steps",
    "inversion": "training steps",
    "prefix": "training steps",
}
"""The label of the axis of conditions, for the kinds of probes whose conditions are numbers."""

SHARE = "recognised as its style (%)"

SPREAD = 0.6
"""Share of the width of a condition over which its rows are spread."""


def probe_chart(kind: str, lines: Sequence[ProbeLine]) -> Figure:
    """The shares of each row with 95 % intervals, in panels: curves over numbers, or points for each condition."""
    marks = marks_of(list(dict.fromkeys(line.row.plain_title for line in lines)))
    tasks = list(dict.fromkeys(line.row.task for line in lines))
    if kind not in AXES:
        figure, grid = panels(len(tasks), 1, (PAGE_WIDTH, 0.6 + 2.1 * len(tasks)))
        for (axis,), task in zip(grid, tasks, strict=True):
            axis.set_title(task)
            _draw_conditions(axis, [line for line in lines if line.row.task == task], marks)
    else:
        groups = list(dict.fromkeys(line.condition.group for line in lines if line.condition.group))
        figure, grid = panels(len(tasks), len(groups), (PAGE_WIDTH, 0.6 + 2.2 * len(tasks)), sharey=True)
        for axes, task in zip(grid, tasks, strict=True):
            for axis, group in zip(axes, groups, strict=True):
                axis.set_title(f"{task}, {group}")
                axis.set_xlabel(AXES[kind])
                found = [line for line in lines if line.row.task == task and line.condition.group in ("", group)]
                _draw_curves(axis, found, marks)
    for row in grid:
        row[0].set_ylabel(SHARE)
        row[0].set_ylim(-3, 103)
    add_legend(figure, 4)
    return figure


def _draw_curves(axis: Axes, lines: Sequence[ProbeLine], marks: dict[str, tuple[str, str]]) -> None:
    """Draw the share of each row over the amounts of the conditions, equally far apart; those without one are last."""
    amounts = sorted({_amount(line) for line in lines})
    for title in dict.fromkeys(line.row.plain_title for line in lines):
        found = {_amount(line): _share(line) for line in lines if line.row.plain_title == title}
        positions = [position for position, amount in enumerate(amounts) if amount in found]
        shares = [found[amounts[position]] for position in positions]
        colour, mark = marks[title]
        axis.errorbar(
            positions,
            [share for share, _, _ in shares],
            yerr=[[below for _, below, _ in shares], [above for _, _, above in shares]],
            fmt=f"{mark}-",
            color=colour,
            elinewidth=0.8,
            linewidth=1,
            label=title,
        )
    names = {_amount(line): line.condition.name for line in lines if line.condition.amount is None}
    axis.set_xticks(range(len(amounts)), [names.get(amount, f"{amount:g}") for amount in amounts])


def _amount(line: ProbeLine) -> float:
    return math.inf if line.condition.amount is None else line.condition.amount


def _draw_conditions(axis: Axes, lines: Sequence[ProbeLine], marks: dict[str, tuple[str, str]]) -> None:
    conditions = list(dict.fromkeys(line.condition.name for line in lines))
    titles = list(dict.fromkeys(line.row.plain_title for line in lines))
    for number, title in enumerate(titles):
        offset = SPREAD * ((number + 0.5) / len(titles) - 0.5)
        found = {line.condition.name: _share(line) for line in lines if line.row.plain_title == title}
        colour, mark = marks[title]
        axis.errorbar(
            [conditions.index(name) + offset for name in found],
            [share for share, _, _ in found.values()],
            yerr=[[below for _, below, _ in found.values()], [above for _, _, above in found.values()]],
            fmt=mark,
            color=colour,
            elinewidth=0.8,
            label=title,
        )
    axis.set_xticks(range(len(conditions)), conditions)
    axis.set_xlim(-0.5, len(conditions) - 0.5)


def _share(line: ProbeLine) -> tuple[float, float, float]:
    """The share of a line in percent, and the distances to the ends of its interval."""
    share, (low, high) = float(pooled(line.counts()).percent), line.interval()
    return share, max(0.0, share - low), max(0.0, high - share)
