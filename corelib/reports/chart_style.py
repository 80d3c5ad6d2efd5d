"""The look of charts: colours that the colour-blind can tell apart, marks, fonts, and files with equal bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from corelib.files.atomic import atomic_write

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The colours of Okabe and Ito (2008), "Color Universal Design", without yellow, which is too pale for thin lines."""

MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""Markers. Their number and that of the colours have no common factor, so that 56 rows differ in at least one."""

MAP = "cividis"
"""The colour map of shares, equal in lightness for readers with and without a colour vision deficiency."""

PAGE_WIDTH = 7.2
"""Width of two columns of a page, in inches."""

STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "lines.markersize": 5,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
    "text.parse_math": False,
}
"""Settings of matplotlib that differ from its defaults. Type 42 keeps the letters of a PDF as letters."""

FORMATS: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "png": {}}
"""Formats of each chart, with metadata that would otherwise name the time."""


@contextmanager
def chart_style() -> Iterator[None]:
    """The style, whatever settings the user has for matplotlib."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)  # type: ignore[arg-type]
        yield


def save_chart(chart: Figure, folder: Path, name: str) -> list[str]:
    """Write a chart in each format, and return the names of the files; equal charts are equal files."""
    names = []
    for kind, metadata in FORMATS.items():
        names.append(f"{name}.{kind}")
        with atomic_write(folder / names[-1]) as temporary:
            chart.savefig(temporary, format=kind, metadata=metadata)
    return names


def chart_png(chart: Figure) -> bytes:
    """A chart as the content of a PNG file."""
    content = BytesIO()
    chart.savefig(content, format="png", metadata=FORMATS["png"])
    return content.getvalue()


def panels(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Figure, list[list[Axes]]]:
    """A figure of panels, in rows and columns.

    Args:
        rows, columns: numbers of panels.
        size: width and height of the figure, in inches.
        options: options of `matplotlib.figure.Figure.subplots`.
    """
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08))
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, [list(row) for row in axes]


def empty_chart(reason: str) -> Figure:
    """A figure with a sentence in place of a chart."""
    figure, ((axis,),) = panels(1, 1, (PAGE_WIDTH, 1.0))
    axis.set_axis_off()
    axis.text(0.5, 0.5, reason, ha="center", va="center", transform=axis.transAxes)
    return figure


def add_legend(figure: Figure, columns: int) -> None:
    """Add one legend below all panels, with an entry for each label."""
    entries: dict[str, Artist] = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns)


def marks_of(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A colour and a marker for each name."""
    return dict(zip(names, islice(zip(cycle(COLOURS), cycle(MARKS), strict=False), len(names)), strict=True))
