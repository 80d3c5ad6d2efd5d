"""The files of a report that counts images: counts, page, chart and provenance."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure

from corelib.files.atomic import write_text
from corelib.reports.chart_style import chart_style, save_chart
from corelib.runs.stage_context import StageContext, StageResult


def write_count_report(
    name: str, context: StageContext, csv: str, markdown: str, draw: Callable[[], Figure], provenance: str
) -> StageResult:
    """Write the files of a report into the folder of its job.

    Args:
        name: name of the product; the names of its files begin with it.
        context: the job's context.
        csv: every count as CSV.
        markdown: the page.
        draw: returns the chart; called with the style of all charts.
        provenance: the jobs behind the counts as CSV. Its file is a record, like that of a table, since it contains
            places and times.
    """
    write_text(context.folder / f"{name}.csv", csv)
    write_text(context.folder / f"{name}.md", markdown)
    with chart_style():
        charts = save_chart(draw(), context.folder, name)
    write_text(context.folder / f"{name}.provenance.csv", provenance)
    return StageResult(sorted([f"{name}.csv", f"{name}.md", *charts]), records=[f"{name}.provenance.csv"])
