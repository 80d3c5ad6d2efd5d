"""The report on a sequence: forgetting step by step beside forgetting at once, as CSV, Markdown and a chart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from corelib.evaluation.seed_statistics import pooled
from corelib.files.atomic import write_text
from corelib.files.csv_files import as_csv
from corelib.reports.chart_style import chart_style, save_chart
from corelib.reports.count_intervals import WILSON, interval_name, share_interval
from corelib.reports.sequence_chart import sequence_chart
from corelib.reports.sequence_counts import MEASURES, SequenceLine, sequence_lines
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.sequence_report import SequenceStage

COLUMNS = (
    "step", "forgotten", "row", "way", "measure", "seed", "style",
    "k", "n", "value", "low", "high", "interval", "flagged", "diverged_at", "run",
)  # fmt: skip

ALL = "all"
"""The entry in the columns `seed` and `style` of a line for all of them together."""

INTRODUCTION = (
    "Each step forgets further styles. In sequence, its training starts from the model of the step before. At once, a "
    "training of the pre-trained model forgets all styles of the steps up to it. UA new is the unlearning accuracy of "
    "the styles of the step, and UA earlier that of the styles of the steps before it. IRA and CRA are those of the "
    "images of retain styles, CRA without the images of forgotten styles. Each number is k of n images, with the share "
    "in percent and its 95 % interval."
)


def report_sequence(settings: SequenceStage, context: StageContext) -> StageResult:
    """Stage: write the counts of a sequence as CSV and Markdown, and draw them. Raises as `sequence_lines` does."""
    lines = list(sequence_lines(settings, context.inputs))
    write_text(context.folder / f"{settings.name}.csv", to_csv(lines))
    write_text(context.folder / f"{settings.name}.md", to_markdown(settings, lines))
    with chart_style():
        charts = save_chart(sequence_chart(lines), context.folder, settings.name)
    return StageResult(sorted([f"{settings.name}.csv", f"{settings.name}.md", *charts]))


def to_csv(lines: Sequence[SequenceLine]) -> str:
    """Every count as CSV: of each training seed and style, and of all seeds and styles together."""
    return as_csv([COLUMNS, *(entry for line in lines for entry in _entries(line))])


def _entries(line: SequenceLine) -> Iterator[list[object]]:
    beginning = [line.step.task, line.forgotten, line.row.row, line.way, line.measure]
    for style in (*line.seeds[0].styles, None):
        name = ALL if style is None else style
        counts = line.counts(style)
        for seed, count in zip(line.seeds, counts, strict=True):
            number, diverged = ("" if value is None else value for value in (seed.seed, seed.diverged_at))
            numbers = [count.k, count.n, f"{count.percent:.2f}", *_ends(share_interval([count]))]
            yield [*beginning, number, name, *numbers, WILSON, seed.flagged, diverged, seed.run]
        if len(counts) > 1:
            together = pooled(counts)
            flagged = sum(seed.flagged for seed in line.seeds)
            steps = " ".join(str(seed.diverged_at) for seed in line.seeds if seed.diverged_at is not None)
            numbers = [together.k, together.n, f"{together.percent:.2f}", *_ends(line.interval(style))]
            runs = " ".join(seed.run for seed in line.seeds)
            yield [*beginning, ALL, name, *numbers, interval_name(counts), flagged, steps, runs]


def _ends(interval: tuple[float, float]) -> list[str]:
    return [f"{end:.2f}" for end in interval]


def to_markdown(settings: SequenceStage, lines: Sequence[SequenceLine]) -> str:
    """The counts of all styles together as Markdown: a section for each row, a line for each step and way."""
    parts = ["# Forgetting in sequence", INTRODUCTION]
    measures = [measure for measure in MEASURES if any(line.measure == measure for line in lines)]
    for row in settings.rows:
        table = [["Step", "forgotten", "way", *measures], ["---", "---:", "---", *["---:"] * len(measures)]]
        for step in settings.steps:
            for way in row.ways:
                found = {
                    line.measure: line
                    for line in lines
                    if (line.row.row, line.step.task, line.way) == (row.row, step.task, way)
                }
                forgotten = str(len(step.new) + len(step.earlier))
                cells = [_cell(found[measure]) if measure in found else "" for measure in measures]
                table.append([step.task, forgotten, way, *cells])
        text = "\n".join("| " + " | ".join(entries) + " |" for entries in table)
        parts.append(f"## {row.plain_title}\n\n{text}")
    return "\n\n".join([*parts, *_remarks(lines), *filter(None, [settings.note])]) + "\n"


def _cell(line: SequenceLine) -> str:
    count, (low, high) = pooled(line.counts()), line.interval()
    return f"{count.k} of {count.n}: {count.percent:.1f} ({low:.1f} to {high:.1f})"


def _remarks(lines: Sequence[SequenceLine]) -> list[str]:
    """Warnings about the models after each step; empty if there are none."""
    remarks = []
    for line in lines:
        words = [f"diverged at step {seed.diverged_at}" for seed in line.seeds if seed.diverged_at is not None]
        if flagged := sum(seed.flagged for seed in line.seeds):
            words.append(f"{flagged} images constant or not finite")
        if words:
            place = f"{line.row.plain_title}, {line.step.task}, {line.way}, {line.measure}"
            remarks.append(f"{place}: {'; '.join(words)}.")
    return remarks
