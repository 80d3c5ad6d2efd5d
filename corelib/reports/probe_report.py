"""The report on a probe: in how many images of each condition a style is recognised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from corelib.files.csv_files import as_csv
from corelib.reports.count_lines import COUNT_COLUMNS, count_entries, in_one_entry
from corelib.reports.count_report import write_count_report
from corelib.reports.count_tables import CellWriter, CountCell, CountTable, notes_as_markdown, tables_as_markdown
from corelib.reports.jobs_behind import jobs_csv
from corelib.reports.probe_charts import probe_chart
from corelib.reports.probe_counts import ProbeLine, probe_lines
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.probe_report import ProbeStage

COLUMNS = ("task", "row", "condition", "group", "amount", *COUNT_COLUMNS, "search_diverged_at", "run")

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
    page, draw = to_markdown(settings, lines), lambda: probe_chart(settings.kind, lines)
    return write_count_report(settings.name, context, to_csv(lines), page, draw, provenance_csv(lines))


def to_csv(lines: Sequence[ProbeLine]) -> str:
    """Every count as CSV: of each training seed and style, and of all seeds and styles together."""
    return as_csv([COLUMNS, *(entry for line in lines for entry in _entries(line))])


def _entries(line: ProbeLine) -> Iterator[list[object]]:
    row, condition = line.row, line.condition
    amount = "" if condition.amount is None else f"{condition.amount:g}"
    beginning = [row.task, row.row, condition.name, condition.group, amount]
    for entries, seeds in count_entries(line):
        steps = in_one_entry(seed.search_diverged_at for seed in seeds)
        yield [*beginning, *entries, steps, in_one_entry(seed.run for seed in seeds)]


def probe_tables(lines: Sequence[ProbeLine]) -> list[CountTable]:
    """The counts of a probe as tables, one for each task, with a column for each condition."""
    writer, tables = CellWriter(), []
    for task in dict.fromkeys(line.row.task for line in lines):
        found = [line for line in lines if line.row.task == task]
        columns = list(dict.fromkeys(line.condition.name for line in found))
        rows: dict[str, tuple[list[str], list[CountCell]]] = {}
        for line in found:
            _, cells = rows.setdefault(line.row.row, ([line.row.plain_title], []))
            cells.append(writer.cell(line))
        tables.append(CountTable(task, [], columns, list(rows.values())))
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
    tables = probe_tables(lines)
    parts = [f"# {TITLES[settings.kind]}", SUCCESS, *tables_as_markdown(tables, ""), MEANINGS[settings.kind]]
    return "\n\n".join([*parts, *filter(None, [settings.note]), *notes_as_markdown(tables)]) + "\n"
