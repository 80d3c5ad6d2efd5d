"""The numbers behind a table, one line each: counts, intervals, comparison with the paper's values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from corelib.evaluation.metrics import ACCURACIES
from corelib.files.csv_files import as_csv
from corelib.reports.paper_comparison import Comparison, Published, PublishedNumbers, verdict
from corelib.reports.table_lines import TableLine

CELL_COLUMNS = (
    "task", "row", "metric", "seed", "k", "n", "value", "sd", "low", "high", "interval",
    "published", "published_k", "published_n", "test", "p", "p_holm", "verdict", "verdict_holm",
    "diverged_at", "flagged", "gate", "run",
)  # fmt: skip

ALL_SEEDS = "all"
"""The entry in the column `seed` of a line for all training seeds together."""

NOT_COMPARABLE = "not comparable"


def cells_csv(
    lines: Sequence[TableLine],
    published: PublishedNumbers,
    comparisons: Mapping[tuple[str, str, str], Comparison],
    gate: str,
) -> str:
    """Every number as CSV.

    A row with several training seeds has a line for each seed and one for all; only the latter is compared with the
    paper.

    Args:
        lines: the lines of the table.
        published: the paper's numbers.
        comparisons: the comparisons of `compare_with_paper`; empty if our numbers are not comparable with the paper's.
        gate: the outcome of the gate.
    """
    return as_csv([CELL_COLUMNS, *(cell for line in lines for cell in _cells(line, published, comparisons, gate))])


def _cells(
    line: TableLine,
    published: PublishedNumbers,
    comparisons: Mapping[tuple[str, str, str], Comparison],
    gate: str,
) -> Iterator[list[object]]:
    for metric in line.metrics:
        key = (line.row.task, line.row.row, metric)
        if len(line.seeds) > 1:
            for numbers in line.seeds:
                alone = TableLine(line.row, [numbers])
                yield [*key, *_numbers(alone, metric), *[""] * 8, *_warnings(alone), gate, numbers.run]
        yield [
            *key,
            *_numbers(line, metric),
            *_comparison(published.get(key), comparisons.get(key)),
            *_warnings(line),
            gate,
            " ".join(numbers.run for numbers in line.seeds),
        ]


def _numbers(line: TableLine, metric: str) -> list[object]:
    count = line.pooled(metric) if metric in ACCURACIES else None
    deviation, interval = line.deviations[metric], line.interval(metric)
    first = line.seeds[0].seed
    seed: object = ALL_SEEDS if len(line.seeds) > 1 else "" if first is None else first
    return [
        seed,
        count.k if count else "",
        count.n if count else "",
        f"{line.means[metric]:.2f}",
        "" if deviation is None else f"{deviation:.2f}",
        *(["", "", ""] if interval is None else [f"{interval[0]:.2f}", f"{interval[1]:.2f}", line.interval_name]),
    ]


def _comparison(theirs: Published | None, comparison: Comparison | None) -> list[object]:
    count = theirs.count if theirs else None
    published = [theirs.value if theirs else "", count.k if count else "", count.n if count else ""]
    if comparison is None:
        return [*published, "", "", "", NOT_COMPARABLE, NOT_COMPARABLE]
    return [
        *published,
        comparison.test,
        f"{comparison.p_value:.4g}",
        f"{comparison.adjusted:.4g}",
        verdict(comparison.differs),
        verdict(comparison.differs_by_holm),
    ]


def _warnings(line: TableLine) -> list[object]:
    diverged = [numbers.diverged_at for numbers in line.seeds if numbers.diverged_at is not None]
    return [" ".join(map(str, diverged)), sum(numbers.flagged for numbers in line.seeds)]
