"""The report on a probe: in how many images of each condition a style is recognised."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from corelib.evaluation.metrics import Count
from corelib.evaluation.seed_statistics import pooled
from corelib.files.atomic import write_text
from corelib.files.csv_files import as_csv
from corelib.reports.chart_style import chart_style, save_chart
from corelib.reports.count_intervals import WILSON
from corelib.reports.jobs_behind import jobs_csv
from corelib.reports.probe_charts import probe_chart
from corelib.reports.probe_counts import ProbeLine, SeedCounts, probe_lines
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.probe_report import ProbeStage

COLUMNS = (
    "task", "row", "condition", "group", "amount", "seed", "style",
    "k", "n", "value", "low", "high", "interval", "flagged", "diverged_at", "search_diverged_at", "run",
)  # fmt: skip

ALL = "all"
"""The entry in the columns `seed` and `style` of a line for all of them together."""

TITLES = {
    "wording": "Other wordings of the prompts",
    "partial_diffusion": "Sampling from noised images of the forget styles",
    "relearning": "Fine-tuning on a few images of the forget styles",
    "inversion": "A learned word for each forget style",
    "prefix": "An adversarial prefix for each forget style",
    "neighbours": "Styles that share a word or a look with a forget style",
}

MEANINGS = {
    "wording": "`usual`: the prompts with which the task is evaluated.",
    "partial_diffusion": (
        "`usual`: images from pure noise. With fewer sampling steps, more of the real image remains: compare each "
        "share with that of a model that has never seen the style."
    ),
    "relearning": "`usual`: the model before fine-tuning.",
    "inversion": "`usual`: prompts with the name of the style.",
    "prefix": "`usual`: prompts without a prefix.",
    "neighbours": (
        "`forgotten`: the forget styles. All other groups are retain styles, for which a high share is good. A shared "
        "word is a word of the style's name that also occurs in the name of a forget style."
    ),
}

SUCCESS = (
    "Images that are recognised as the style of their prompt: k of n, with the share in percent and its 95 % interval. "
    "For a forget style, a high share means that the probe has recovered it."
)


def report_probe(settings: ProbeStage, context: StageContext) -> StageResult:
    """Stage: write the counts of a probe as CSV and Markdown, draw them, and write their provenance as CSV.

    Raises as `probe_lines` does.
    """
    lines = list(probe_lines(settings, context.inputs))
    write_text(context.folder / f"{settings.name}.csv", to_csv(lines))
    write_text(context.folder / f"{settings.name}.md", to_markdown(settings, lines))
    with chart_style():
        charts = save_chart(probe_chart(settings.kind, lines), context.folder, settings.name)
    origins = f"{settings.name}.provenance.csv"  # a record, like that of a table: it names places and times
    write_text(context.folder / origins, provenance_csv(lines))
    return StageResult(sorted([f"{settings.name}.csv", f"{settings.name}.md", *charts]), records=[origins])


def to_csv(lines: Sequence[ProbeLine]) -> str:
    """Every count as CSV: of each training seed and style, and of all seeds and styles together."""
    return as_csv([COLUMNS, *(entry for line in lines for entry in _entries(line))])


def _entries(line: ProbeLine) -> Iterator[list[object]]:
    row, condition = line.row, line.condition
    amount = "" if condition.amount is None else f"{condition.amount:g}"
    beginning = [row.task, row.row, condition.name, condition.group, amount]
    for style in (*line.styles, None):
        name = ALL if style is None else style
        counts = line.counts(style)
        for seed, count in zip(line.seeds, counts, strict=True):
            number = "" if seed.seed is None else seed.seed
            yield [
                *(*beginning, number, name, *_numbers(count, *count.interval()), WILSON),
                *(seed.flagged, *_steps([seed]), seed.run),
            ]
        if len(counts) > 1:
            flagged = sum(seed.flagged for seed in line.seeds)
            numbers = _numbers(pooled(counts), *line.interval(style))
            runs = " ".join(seed.run for seed in line.seeds)
            yield [*beginning, ALL, name, *numbers, line.interval_name, flagged, *_steps(line.seeds), runs]


def _steps(seeds: Sequence[SeedCounts]) -> list[str]:
    """The steps at which trainings and searches diverged."""
    columns = ([seed.diverged_at for seed in seeds], [seed.search_diverged_at for seed in seeds])
    return [" ".join(str(step) for step in column if step is not None) for column in columns]


def _numbers(count: Count, low: float, high: float) -> list[object]:
    return [count.k, count.n, f"{count.percent:.2f}", f"{low:.2f}", f"{high:.2f}"]


@dataclass(frozen=True)
class ProbeCell:
    """The count of a row under one condition as text, with a footnote if there is a warning about it.

    Attributes:
        number: number of the footnote; None without one.
        note: the warning; empty without one.
    """

    text: str
    number: int | None
    note: str


@dataclass(frozen=True)
class ProbeTable:
    """The counts of all styles together on one task.

    Attributes:
        columns: the conditions.
        rows: the title of each row, and its cells in the order of the columns.
    """

    task: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[ProbeCell]]]

    @property
    def notes(self) -> list[ProbeCell]:
        """The cells that have a footnote."""
        return [cell for _, cells in self.rows for cell in cells if cell.note]


def probe_tables(lines: Sequence[ProbeLine]) -> list[ProbeTable]:
    """The counts of a probe as tables, one for each task; footnotes are numbered from 1."""
    numbers = itertools.count(1)
    tables = []
    for task in dict.fromkeys(line.row.task for line in lines):
        found = [line for line in lines if line.row.task == task]
        columns = list(dict.fromkeys(line.condition.name for line in found))
        rows: dict[str, tuple[str, list[ProbeCell]]] = {}
        for line in found:
            _, cells = rows.setdefault(line.row.row, (line.row.plain_title, []))
            cells.append(ProbeCell(_text(line), next(numbers) if line.remark else None, line.remark))
        tables.append(ProbeTable(task, columns, list(rows.values())))
    return tables


def provenance_csv(lines: Sequence[ProbeLine]) -> str:
    """Every job that contributed to a count as CSV: its run, commit, device, host and time."""
    return jobs_csv(
        ("task", "row", "condition", "seed"),
        (
            ((line.row.task, line.row.row, line.condition.name, "" if seed.seed is None else seed.seed), seed.origins)
            for line in lines
            for seed in line.seeds
        ),
    )


def to_markdown(settings: ProbeStage, lines: Sequence[ProbeLine]) -> str:
    """The counts of all styles together as Markdown: a section for each task, a column for each condition."""
    parts, tables = [f"# {TITLES[settings.kind]}", SUCCESS], probe_tables(lines)
    for table in tables:
        rows = [["", *table.columns], ["---", *["---:"] * len(table.columns)]]
        rows += [[title.replace("|", "\\|"), *map(_with_mark, cells)] for title, cells in table.rows]
        parts.append(f"## {table.task}\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows))
    notes = [f"[^{cell.number}]: {cell.note}." for table in tables for cell in table.notes]
    return "\n\n".join([*parts, MEANINGS[settings.kind], *filter(None, [settings.note]), *notes]) + "\n"


def _with_mark(cell: ProbeCell) -> str:
    return cell.text if cell.number is None else f"{cell.text}[^{cell.number}]"


def _text(line: ProbeLine) -> str:
    count, (low, high) = pooled(line.counts()), line.interval()
    return f"{count.k} of {count.n}: {count.percent:.1f} ({low:.1f} to {high:.1f})"
