"""Charts of a table: its accuracies, confusion, and the losses of its training runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from matplotlib.figure import Figure

from corelib.reports.accuracy_charts import styles_chart, tradeoff_chart, values_chart
from corelib.reports.chart_style import chart_style, empty_chart, save_chart
from corelib.reports.confusion_charts import confusion_chart
from corelib.reports.loss_charts import loss_chart
from corelib.reports.paper_comparison import PublishedNumbers, read_published
from corelib.reports.table_lines import TableLine, measured_metrics, table_line
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.reports import ChartsStage

NOT_JUDGED = "The world of this study has no classifier, so this chart has no numbers."


def draw_charts(settings: ChartsStage, context: StageContext) -> StageResult:
    """Stage: draw the charts of a table, each as PDF and PNG."""
    lines = [table_line(row, context.inputs) for row in settings.rows]
    trainings = {cells: context.inputs[role] for cells, role in settings.trainings.items()}
    files = []
    with chart_style():
        for name, chart in charts_of(lines, read_published(settings.published), trainings):
            files += save_chart(chart, context.folder, f"{settings.name}.{name}")
    return StageResult(sorted(files))


def charts_of(
    lines: Sequence[TableLine], published: PublishedNumbers, trainings: Mapping[str, Manifest]
) -> Iterator[tuple[str, Figure]]:
    """The charts of a table by name, to be drawn within `chart_style`.

    Args:
        lines: the lines of the table.
        published: the paper's numbers.
        trainings: the manifest of the training run of each model, by the role of its cells.
    """
    are_judged = all("style" in line.judged_kinds for line in lines)
    yield "tradeoff", tradeoff_chart(lines) if are_judged else empty_chart(NOT_JUDGED)
    yield "values", values_chart(lines, published) if measured_metrics(lines) else empty_chart(NOT_JUDGED)
    yield "styles", styles_chart(lines) if are_judged else empty_chart(NOT_JUDGED)
    yield "confusion", confusion_chart(lines) if are_judged else empty_chart(NOT_JUDGED)
    yield "losses", loss_chart(lines, trainings)
