"""Charts of accuracies: unlearning against retention, by style, and beside the paper's values."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from corelib.reports.chart_style import COLOURS, MAP, PAGE_WIDTH, add_legend, marks_of, panels
from corelib.reports.paper_comparison import PublishedNumbers
from corelib.reports.table_lines import TableLine, by_task, measured_metrics
from corelib.reports.table_styles import recognised_as_itself

MAX_ANNOTATED = 20
"""Maximum number of styles for which a panel prints the shares; more do not fit."""


def tradeoff_chart(lines: Sequence[TableLine]) -> Figure:
    """UA against IRA of each row, with 95 % intervals, in a panel for each task; the upper right corner is best.

    All lines are of one world with a classifier of styles.
    """
    tasks = by_task(lines)
    marks = marks_of(list(dict.fromkeys(line.row.plain_title for line in lines)))
    height = PAGE_WIDTH / max(3, len(tasks)) + 0.35 + 0.18 * math.ceil(len(marks) / 4)
    figure, ((*axes,),) = panels(1, len(tasks), (PAGE_WIDTH, height), sharey=True)
    for axis, (task, task_lines) in zip(axes, tasks.items(), strict=True):
        axis.set_title(task)
        axis.set_xlabel("IRA (%), retention")
        for line in task_lines:
            colour, mark = marks[line.row.plain_title]
            x, y = float(line.means["IRA"]), float(line.means["UA"])
            axis.errorbar(
                x, y, xerr=_reach(line, "IRA"), yerr=_reach(line, "UA"), fmt=mark, color=colour, elinewidth=0.8,
                label=line.row.plain_title, markeredgecolor="white", markeredgewidth=0.5,
            )  # fmt: skip
    axes[0].set_ylabel("UA (%), unlearning")
    add_legend(figure, 4)
    return figure


def _reach(line: TableLine, metric: str) -> tuple[list[float], list[float]] | None:
    """The distances from a mean to the ends of its interval, as matplotlib expects them; None without an interval."""
    interval, mean = line.interval(metric), float(line.means[metric])
    if interval is None or not math.isfinite(mean):
        return None
    return [max(0.0, mean - interval[0])], [max(0.0, interval[1] - mean)]


def styles_chart(lines: Sequence[TableLine]) -> Figure:
    """The share of images of each style that are recognised as it, a row of squares for each row of the table.

    The forget styles are to the left of a line; a low share is good there, and a high one elsewhere.
    """
    tasks = by_task(lines)
    longest = max(len(recognised_as_itself(line, "style")) for line in lines)
    width = max(PAGE_WIDTH, 1.6 + 0.17 * longest)
    heights = [1.1 + 0.2 * len(task_lines) for task_lines in tasks.values()]
    figure, grid = panels(len(tasks), 1, (width, sum(heights)), height_ratios=heights)
    for (axis,), (task, task_lines) in zip(grid, tasks.items(), strict=True):
        shares = [recognised_as_itself(line, "style") for line in task_lines]
        styles = sorted(shares[0], key=lambda style: task_lines[0].seeds[0].set_of(style))  # forget before retain
        values = [[float(counts[style].percent) for style in styles] for counts in shares]
        image = axis.imshow(values, cmap=MAP, vmin=0, vmax=100, aspect="auto", interpolation="nearest")
        axis.set_title(f"{task}: images recognised as the style of their prompt (%)")
        _label(axis, styles, [line.row.plain_title for line in task_lines])
        num_forgotten = sum(task_lines[0].seeds[0].set_of(style) == "forget" for style in styles)
        axis.axvline(num_forgotten - 0.5, color="white", linewidth=2)
        if len(styles) <= MAX_ANNOTATED:
            _print_shares(axis, values)
    figure.colorbar(image, ax=[row[0] for row in grid], shrink=0.6, label="%")
    return figure


def _label(axis: Axes, columns: Sequence[str], rows: Sequence[str]) -> None:
    axis.set_xticks(range(len(columns)), [name.replace("_", " ") for name in columns], rotation=90)
    axis.set_yticks(range(len(rows)), rows)
    axis.grid(visible=False)
    axis.tick_params(length=0)


def _print_shares(axis: Axes, values: Sequence[Sequence[float]]) -> None:
    for row, shares in enumerate(values):
        for column, share in enumerate(shares):
            colour = "black" if share > 55 else "white"
            axis.text(column, row, f"{share:.0f}", ha="center", va="center", color=colour, fontsize=6)


def values_chart(lines: Sequence[TableLine], published: PublishedNumbers) -> Figure:
    """Every number with its 95 % interval, and the paper's beside it, a panel for each task and metric."""
    tasks, metrics = by_task(lines), measured_metrics(lines)
    heights = [0.55 + 0.2 * len(task_lines) for task_lines in tasks.values()]
    figure, grid = panels(
        len(tasks), len(metrics), (PAGE_WIDTH, sum(heights) + 0.5), sharex="col", height_ratios=heights
    )
    for axes, (task, task_lines) in zip(grid, tasks.items(), strict=True):
        positions = range(len(task_lines))
        for metric, axis in zip(metrics, axes, strict=True):
            axis.set_title(f"{task}, {metric}" if metric == metrics[0] else metric)
            for position, line in zip(positions, task_lines, strict=True):
                _draw_value(axis, position, line, metric, published)
            axis.set_yticks(positions, [line.row.plain_title for line in task_lines] if metric == metrics[0] else [])
            axis.set_ylim(len(task_lines) - 0.5, -0.5)
            axis.margins(x=0.1)
    add_legend(figure, 2)
    return figure


def _draw_value(axis: Axes, position: int, line: TableLine, metric: str, published: PublishedNumbers) -> None:
    mean = float(line.means[metric])
    if math.isfinite(mean):
        axis.errorbar(
            mean, position, xerr=_reach(line, metric), fmt="o", color=COLOURS[0], elinewidth=1, label="this study"
        )
    theirs = published.get((line.row.task, line.row.row, metric))
    if theirs is not None:
        axis.plot(float(theirs.value), position, "D", color=COLOURS[1], fillstyle="none", label="paper")
