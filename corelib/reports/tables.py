"""Tables: queries over evaluated runs, in the paper's columns, with counts, verdicts and provenance of each number."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from decimal import Decimal

from corelib.evaluation.metrics import ACCURACIES, CELLS, Count, round_half_up, scaled_fid, total
from corelib.evaluation.significance import count_differences, fisher_p_value
from corelib.files.atomic import write_text
from corelib.files.json_files import read_json
from corelib.reports.jobs_behind import FID, FID_OF_ORIGINAL, PREDICTIONS, JobProvenance, provenance_of_cells
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.reports import TableRow, TableStage

METRICS = (*ACCURACIES, "SFID", "Total")

COLUMNS = ("Task", "Algorithm", *METRICS, "Remark")

CELL_COLUMNS = (
    "task", "row", "metric", "k", "n", "value", "low", "high",
    "published", "published_k", "published_n", "verdict", "diverged_at", "flagged", "gate", "run",
)  # fmt: skip

ORIGIN_COLUMNS = ("task", "row", "metric", "stage", "run", "commit", "device", "host", "finished")

METRIC_INPUTS = {**dict.fromkeys(ACCURACIES, (PREDICTIONS,)), "SFID": (FID, FID_OF_ORIGINAL)}
"""The inputs of the cells that decide a metric; Total depends on all of them."""

SIGNIFICANCE = 0.05

NO_GATE = "off"

LATEX_ESCAPES = str.maketrans(
    {**{mark: f"\\{mark}" for mark in "&%$#_{}"}, "\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}
    | {"^": r"\textasciicircum{}"}
)


@dataclass(frozen=True)
class TableLine:
    """One line of a table: a row with its evaluated run."""

    row: TableRow
    run: str
    counts: Mapping[str, Count]
    sfid: Decimal
    diverged_at: int | None
    flagged: int
    origins: Mapping[str, list[JobProvenance]]

    @property
    def remark(self) -> str:
        """Warnings about the numbers of the line; empty if there are none."""
        remarks = []
        if self.diverged_at is not None:
            remarks.append(f"diverged at step {self.diverged_at}")
        if self.flagged:
            images = "1 image" if self.flagged == 1 else f"{self.flagged} images"
            remarks.append(f"{images} constant or not finite")
        return "; ".join(remarks)

    @property
    def title(self) -> str:
        """The title of the row without line breaks, followed by the remark."""
        title = " ".join(self.row.title.split())
        return f"{title} ({self.remark})" if self.remark else title

    @property
    def values(self) -> dict[str, Decimal]:
        """The value of each metric, rounded as in the paper."""
        values = {name: count.percent for name, count in self.counts.items()} | {"SFID": self.sfid}
        return values | {"Total": total(values.values())}

    @property
    def may_be_best(self) -> bool:
        """Whether the line competes for the best Total: its Total is finite, and it has no remark."""
        return not self.remark and self.values["Total"].is_finite()

    def jobs_behind(self, metric: str) -> list[JobProvenance]:
        """The jobs that contributed to the value of a metric, without repetition."""
        roles = METRIC_INPUTS.get(metric, tuple(self.origins))
        return list(dict.fromkeys(origin for role in roles for origin in self.origins[role]))


@dataclass(frozen=True)
class Published:
    """A number of the paper, with its count if it is an accuracy."""

    value: str
    count: Count | None


def tabulate(settings: TableStage, context: StageContext) -> StageResult:
    """Stage: write a table as CSV, Markdown and LaTeX, and its cells and their provenance as CSV."""
    lines = [table_line(row, context.inputs[row.cells]) for row in settings.rows]
    published = read_published(settings.published)
    gate = gate_outcome(context.inputs.get("gate"))
    notes = [chance_note(lines, published if settings.comparable else {}), "" if gate == NO_GATE else f"Gate: {gate}."]
    contents = {
        f"{settings.name}.csv": to_csv(lines),
        f"{settings.name}.md": to_markdown(lines) + "".join(f"\n{note}\n" for note in notes if note),
        f"{settings.name}.tex": ("" if gate == NO_GATE else f"% gate: {gate}\n") + to_latex(lines),
        f"{settings.name}.cells.csv": cells_csv(lines, published, settings.comparable, gate),
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


def table_line(row: TableRow, cells: Manifest) -> TableLine:
    """The line of a row, from the cells of its run."""
    numbers = read_json(cells.file(CELLS))
    counts = {name: Count(**numbers[name]) for name in ACCURACIES}
    sfid = round_half_up(scaled_fid(numbers["FID_of_original"], numbers["FID"]))
    diverged_at, flagged = numbers["diverged_at"], numbers["flagged"]
    return TableLine(row, cells.folder.name, counts, sfid, diverged_at, flagged, provenance_of_cells(cells))


def to_csv(lines: list[TableLine]) -> str:
    """The table as CSV, in the paper's columns followed by a column of remarks."""
    rows = [[line.row.task, line.row.title, *map(_format, line.values.values()), line.remark] for line in lines]
    return _csv([COLUMNS, *rows])


def to_markdown(lines: list[TableLine]) -> str:
    """The table as Markdown, one section per task; the best Total of each task is bold."""
    parts = []
    for task, task_lines in _group_by_task(lines):
        header = ["Algorithm", *(f"{metric} (↑)" for metric in METRICS)]
        rows = [header, ["---", *["---:"] * len(METRICS)]]
        rows += [[line.title.replace("|", "\\|"), *_format_values(line, task_lines, "**{}**")] for line in task_lines]
        parts.append(f"### {task}\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows))
    return "\n\n".join(parts) + "\n"


def to_latex(lines: list[TableLine]) -> str:
    """The table as LaTeX, for the package booktabs; the best Total of each task is bold."""
    header = ["Algorithm", *(rf"{metric} ($\uparrow$)" for metric in METRICS)]
    parts = [rf"\begin{{tabular}}{{l{'r' * len(METRICS)}}}", r"\toprule", _latex_row(header)]
    for task, task_lines in _group_by_task(lines):
        parts += [r"\midrule", rf"\multicolumn{{{len(header)}}}{{l}}{{\emph{{{_escape_latex(task)}}}}} \\"]
        parts += [
            _latex_row([_escape_latex(line.title), *_format_values(line, task_lines, r"\textbf{{{}}}")])
            for line in task_lines
        ]
    return "\n".join([*parts, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _group_by_task(lines: list[TableLine]) -> Iterator[tuple[str, list[TableLine]]]:
    for task in dict.fromkeys(line.row.task for line in lines):
        yield task, [line for line in lines if line.row.task == task]


def _format_values(line: TableLine, task_lines: list[TableLine], bold: str) -> list[str]:
    """The values of a line as text; its Total is bold if it is the best among the lines that may be best."""
    values = [_format(value) for value in line.values.values()]
    totals = [other.values["Total"] for other in task_lines if other.may_be_best]
    if line.may_be_best and line.values["Total"] == max(totals):
        values[-1] = bold.format(values[-1])
    return values


def _latex_row(entries: list[str]) -> str:
    return " & ".join(entries) + r" \\"


def _escape_latex(text: str) -> str:
    """Escape the special characters of LaTeX."""
    return text.translate(LATEX_ESCAPES)


def cells_csv(
    lines: list[TableLine], published: Mapping[tuple[str, str, str], Published], comparable: bool, gate: str
) -> str:
    """Every number as CSV, with its count, 95 % interval, published value and verdict, and the outcome of the gate."""
    return _csv([CELL_COLUMNS, *(cell for line in lines for cell in _cells(line, published, comparable, gate))])


def _cells(
    line: TableLine, published: Mapping[tuple[str, str, str], Published], comparable: bool, gate: str
) -> Iterator[list[object]]:
    for metric, value in line.values.items():
        count = line.counts.get(metric)
        theirs = published.get((line.row.task, line.row.row, metric))
        low, high = count.interval() if count else ("", "")
        yield [
            line.row.task,
            line.row.row,
            metric,
            count.k if count else "",
            count.n if count else "",
            _format(value),
            f"{low:.2f}" if count else "",
            f"{high:.2f}" if count else "",
            theirs.value if theirs else "",
            theirs.count.k if theirs and theirs.count else "",
            theirs.count.n if theirs and theirs.count else "",
            verdict(count, theirs, comparable),
            "" if line.diverged_at is None else line.diverged_at,
            line.flagged,
            gate,
            line.run,
        ]


def provenance_csv(lines: list[TableLine]) -> str:
    """Every job that contributed to a number as CSV: its run, commit, device, host and time."""
    return _csv(
        [
            ORIGIN_COLUMNS,
            *(
                [line.row.task, line.row.row, metric, *astuple(origin)]
                for line in lines
                for metric in METRICS
                for origin in line.jobs_behind(metric)
            ),
        ]
    )


def verdict(count: Count | None, published: Published | None, comparable: bool) -> str:
    """Whether an accuracy and its published value may be equal: Fisher's exact test of two proportions at 5 %."""
    if not comparable or count is None or published is None or published.count is None:
        return "not comparable"
    return "compatible" if fisher_p_value(count, published.count) >= SIGNIFICANCE else "differs"


def chance_note(lines: list[TableLine], published: Mapping[tuple[str, str, str], Published]) -> str:
    """Note on how many accuracies differ from the published ones, and how many would by chance; may be empty."""
    pairs = [
        (count, theirs.count)
        for line in lines
        for metric, count in line.counts.items()
        if (theirs := published.get((line.row.task, line.row.row, metric))) is not None and theirs.count is not None
    ]
    if not pairs:
        return ""
    differences = count_differences(pairs, SIGNIFICANCE)
    differ = "differs" if differences.differing == 1 else "differ"
    return (
        f"Of {differences.pairs} accuracies that the paper also prints, {differences.differing} {differ} (Fisher's "
        f"exact test at 5 %). If all were equal, {differences.expected:.2g} would differ by chance; "
        f"{differences.differing} or more with a probability of {differences.at_least_as_many:.2g} (cells taken as "
        "independent)."
    )


def read_published(numbers: list[list[str]]) -> dict[tuple[str, str, str], Published]:
    """The paper's numbers, given as (task, row, metric, value, k, n), by (task, row, metric)."""
    return {
        (task, row, metric): Published(value, Count(int(k), int(n)) if k and n else None)
        for task, row, metric, value, k, n in numbers
    }


def _format(value: Decimal) -> str:
    return f"{value:.2f}"


def _csv(rows: list[object]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)  # type: ignore[arg-type]
    return buffer.getvalue()
