"""The report on a sequence: forgetting step by step beside forgetting at once, as CSV, Markdown and a chart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from corelib.files.csv_files import as_csv
from corelib.reports.count_lines import COUNT_COLUMNS, count_entries, in_one_entry
from corelib.reports.count_report import write_count_report
from corelib.reports.count_tables import CellWriter, CountTable, notes_as_markdown, tables_as_markdown
from corelib.reports.jobs_behind import jobs_csv
from corelib.reports.sequence_chart import sequence_chart
from corelib.reports.sequence_counts import MEASURES, SequenceLine, sequence_lines
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.sequence_report import SequenceStage

COLUMNS = ("step", "forgotten", "row", "way", "task", "measure", *COUNT_COLUMNS, "run")

INTRODUCTION = (
    "Each step forgets further styles. In sequence, its training starts from the model of the step before. At once, a "
    "training of the pre-trained model forgets all styles of the steps up to it. UA new is the unlearning accuracy of "
    "the styles of the step, and UA earlier that of the styles of the steps before it. IRA and CRA are those of the "
    "images of retain styles, CRA without the images of forgotten styles. Each number is k of n images, with the share "
    "in percent and its 95 % interval."
)


def report_sequence(settings: SequenceStage, context: StageContext) -> StageResult:
    """Stage: write the counts of a sequence as CSV and Markdown, draw them, and write their provenance as CSV.

    Raises as `sequence_lines` does.
    """
    lines = list(sequence_lines(settings, context.inputs))
    page, draw = to_markdown(settings, lines), lambda: sequence_chart(lines)
    return write_count_report(settings.name, context, to_csv(lines), page, draw, provenance_csv(lines))


def to_csv(lines: Sequence[SequenceLine]) -> str:
    """Every count as CSV: of each training seed and style, and of all seeds and styles together."""
    return as_csv([COLUMNS, *(entry for line in lines for entry in _entries(line))])


def _entries(line: SequenceLine) -> Iterator[list[object]]:
    beginning = [line.step.task, line.step.forgotten, line.row.row, line.way, line.task, line.measure]
    for entries, seeds in count_entries(line):
        yield [*beginning, *entries, in_one_entry(seed.run for seed in seeds)]


def provenance_csv(lines: Sequence[SequenceLine]) -> str:
    """Every job that contributed to the counts of a model as CSV: its run, commit, device, host and time."""
    origins = {
        (line.step.task, line.row.row, line.way, "" if seed.seed is None else seed.seed): seed.origins
        for line in lines
        for seed in line.seeds
    }
    return jobs_csv(("step", "row", "way", "seed"), origins.items())


def sequence_tables(settings: SequenceStage, lines: Sequence[SequenceLine]) -> list[CountTable]:
    """The counts of a sequence as tables, one for each row of the sequence, with a line for each step and way."""
    writer, tables = CellWriter(), []
    measures = [measure for measure in MEASURES if any(line.measure == measure for line in lines)]
    found = {(line.row.row, line.step.task, line.way, line.measure): line for line in lines}
    for row in settings.rows:
        counts = [
            (
                [step.task, str(step.forgotten), way],
                [writer.cell(found.get((row.row, step.task, way, measure))) for measure in measures],
            )
            for step in settings.steps
            for way in row.ways
        ]
        tables.append(CountTable(row.plain_title, ["forgotten", "way"], measures, counts))
    return tables


def to_markdown(settings: SequenceStage, lines: Sequence[SequenceLine]) -> str:
    """The counts of all styles together as Markdown: a section for each row, a line for each step and way."""
    tables = sequence_tables(settings, lines)
    parts = ["# Forgetting in sequence", INTRODUCTION, *tables_as_markdown(tables, "Step")]
    return "\n\n".join([*parts, *filter(None, [settings.note]), *notes_as_markdown(tables)]) + "\n"
