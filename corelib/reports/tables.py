"""Tables: queries over evaluated runs, in the paper's columns, with the numbers behind them and their provenance."""

from __future__ import annotations

from decimal import Decimal

from corelib.files.atomic import write_text
from corelib.files.csv_files import as_csv
from corelib.reports.paper_comparison import chance_note, compare_with_paper, read_published
from corelib.reports.seed_numbers import METRICS
from corelib.reports.table_cells import cells_csv
from corelib.reports.table_lines import TableLine, by_task, measured_metrics, table_line
from corelib.reports.table_pairs import pairs_csv
from corelib.reports.table_provenance import provenance_csv
from corelib.reports.table_styles import accuracies_csv, confusion_csv
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.reports import TableStage

COLUMNS = ("Task", "Algorithm", *METRICS, "Seeds", *(f"{metric} sd" for metric in METRICS), "Remark")

NO_GATE = "off"

BOOKTABS = r"% \usepackage{booktabs}"

LATEX_ESCAPES = str.maketrans(
    {**{mark: f"\\{mark}" for mark in "&%$#_{}"}, "\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}
    | {"^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
)

METRIC_NOTES = {
    "UA": "UA: share of the images prompted with a forget style that are not recognised as that style.",
    "IRA": "IRA: share of the images prompted with a retain style that are recognised as that style.",
    "CRA": "CRA: share of all these images that are recognised as the prompted object.",
    "SFID": "SFID: the FID of the original model divided by that of this model, at most 100 %.",
    "Total": "Total: the sum of the others.",
}

FILES_NOTE = "All numbers are in percent; the file that ends in `.cells.csv` has counts and 95 % intervals."


def tabulate(settings: TableStage, context: StageContext) -> StageResult:
    """Stage: write a table as CSV, Markdown and LaTeX, and as CSV what is behind it: its cells, the differences between
    its rows, accuracies by style and object, what styles are recognised as, and the provenance of its numbers."""
    lines = [table_line(row, context.inputs) for row in settings.rows]
    published = read_published(settings.published)
    comparisons = compare_with_paper(lines, published if settings.comparable else {})
    gate = gate_outcome(context.inputs.get("gate"))
    notes = [
        " ".join([*(METRIC_NOTES[metric] for metric in measured_metrics(lines)), FILES_NOTE]),
        seeds_note(lines),
        chance_note(list(comparisons.values())),
        settings.note,
        "" if gate == NO_GATE else f"Gate: {gate}.",
    ]
    contents = {
        f"{settings.name}.csv": to_csv(lines),
        f"{settings.name}.md": to_markdown(lines) + "".join(f"\n{note}\n" for note in notes if note),
        f"{settings.name}.tex": ("" if gate == NO_GATE else f"% gate: {gate}\n") + to_latex(lines),
        f"{settings.name}.cells.csv": cells_csv(lines, published, comparisons, gate),
        f"{settings.name}.pairs.csv": pairs_csv(lines),
        f"{settings.name}.styles.csv": accuracies_csv(lines),
        f"{settings.name}.confusion.csv": confusion_csv(lines),
    }
    for name, content in contents.items():
        write_text(context.folder / name, content)
    # a record, which the manifest does not list: it names places and times, and equal tables are to be equal files
    origins = f"{settings.name}.provenance.csv"
    write_text(context.folder / origins, provenance_csv(lines))
    return StageResult(sorted(contents), records=[origins])


def gate_outcome(gate: Manifest | None) -> str:
    """The outcome of the gate: `passed` or `failed`; `off` if there is no gate."""
    return NO_GATE if gate is None else str(gate.facts["outcome"])


def seeds_note(lines: list[TableLine]) -> str:
    """A note on the meaning of the numbers, if a row has several training seeds; else empty."""
    if all(len(line.seeds) == 1 for line in lines):
        return ""
    return "Numbers with ± are the mean and the sample standard deviation over the training seeds of the row."


def to_csv(lines: list[TableLine]) -> str:
    """The table as CSV: the paper's columns, then the number of training seeds, standard deviations and remarks.

    Columns of metrics that are not measured are empty.
    """
    rows = [
        [
            line.row.task,
            line.row.title,
            *(_format(line.means.get(metric)) for metric in METRICS),
            "" if line.seeds[0].seed is None else len(line.seeds),
            *(_format(line.deviations.get(metric)) for metric in METRICS),
            line.remark,
        ]
        for line in lines
    ]
    return as_csv([COLUMNS, *rows])


def to_markdown(lines: list[TableLine]) -> str:
    """The table as Markdown, one section per task; the best Total of each task is bold."""
    parts, metrics = [], measured_metrics(lines)
    for task, task_lines in by_task(lines).items():
        header = ["Algorithm", *(f"{metric} (↑)" for metric in metrics)]
        rows = [header, ["---", *["---:"] * len(metrics)]]
        rows += [
            [line.title.replace("|", "\\|"), *_format_values(line, task_lines, "**{}**", "±")] for line in task_lines
        ]
        parts.append(f"### {task}\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows))
    return "\n\n".join(parts) + "\n"


def to_latex(lines: list[TableLine]) -> str:
    """The table as LaTeX; the best Total of each task is bold. The first line names the package that it needs."""
    metrics = measured_metrics(lines)
    header = ["Algorithm", *(rf"{metric} ($\uparrow$)" for metric in metrics)]
    parts = [BOOKTABS, rf"\begin{{tabular}}{{l{'r' * len(metrics)}}}", r"\toprule", _latex_row(header)]
    for task, task_lines in by_task(lines).items():
        parts += [r"\midrule", rf"\multicolumn{{{len(header)}}}{{l}}{{\emph{{{_escape_latex(task)}}}}} \\"]
        parts += [
            _latex_row([_escape_latex(line.title), *_format_values(line, task_lines, r"\textbf{{{}}}", r"$\pm$")])
            for line in task_lines
        ]
    return "\n".join([*parts, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _format_values(line: TableLine, task_lines: list[TableLine], bold: str, plus_minus: str) -> list[str]:
    """The values of a line as text; its Total is bold if it is the best among the lines that may be best."""
    values = [
        _format(mean) if deviation is None else f"{_format(mean)} {plus_minus} {deviation:.2f}"
        for mean, deviation in zip(line.means.values(), line.deviations.values(), strict=True)
    ]
    totals = [other.means["Total"] for other in task_lines if other.may_be_best]
    if line.may_be_best and line.means["Total"] == max(totals):
        values[-1] = bold.format(values[-1])
    return values


def _latex_row(entries: list[str]) -> str:
    return " & ".join(entries) + r" \\"


def _escape_latex(text: str) -> str:
    """Escape the special characters of LaTeX."""
    return text.translate(LATEX_ESCAPES)


def _format(value: Decimal | float | None) -> str:
    """A number with two decimals; empty if there is none."""
    return "" if value is None else f"{value:.2f}"
