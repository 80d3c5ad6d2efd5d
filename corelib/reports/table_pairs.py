"""Differences between the rows of a table, on the same prompts and noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from corelib.evaluation.metrics import ACCURACIES
from corelib.evaluation.seed_statistics import (
    PairedCount,
    mean_interval,
    paired_count,
    paired_p_value,
)
from corelib.evaluation.significance import holm
from corelib.files.csv_files import as_csv
from corelib.reports.seed_numbers import SeedNumbers
from corelib.reports.table_lines import TableLine

PAIR_COLUMNS = (
    "task", "metric", "first", "second", "seeds", "images", "only_first", "only_second",
    "difference", "low", "high", "test", "p", "p_holm",
)  # fmt: skip

MCNEMAR, PAIRED_T = "McNemar", "paired t"


def pairs_csv(lines: Sequence[TableLine]) -> str:
    """Each accuracy of each pair of rows of a task as CSV: the difference, its interval and its p value.

    Two models are compared with the same training seed; a model without a seed (the original one) with each model of
    the other row. Rows without a common seed are not compared. Holm's method covers all lines of the file.
    """
    compared = [
        (line, other, metric, pairs)
        for line, other in combinations(lines, 2)
        if line.row.task == other.row.task
        for metric in ACCURACIES
        if metric in line.metrics
        if (pairs := list(paired_counts(line, other, metric)))
    ]
    p_values = [paired_p_value(pairs) for *_, pairs in compared]
    entries = zip(compared, p_values, holm(p_values), strict=True)
    return as_csv([PAIR_COLUMNS, *(_entry(*one, p_value, adjusted) for one, p_value, adjusted in entries)])


def paired_counts(line: TableLine, other: TableLine, metric: str) -> Iterator[PairedCount]:
    """The paired counts of an accuracy of two rows of a task, one for each common training seed."""
    for first, second in _common_seeds(line.seeds, other.seeds):
        yield paired_count(first.correct[metric], second.correct[metric])


def _common_seeds(
    line: Sequence[SeedNumbers], other: Sequence[SeedNumbers]
) -> Iterator[tuple[SeedNumbers, SeedNumbers]]:
    for first in line:
        for second in other:
            if first.seed is None or second.seed is None or first.seed == second.seed:
                yield first, second


def _entry(
    line: TableLine, other: TableLine, metric: str, pairs: Sequence[PairedCount], p_value: float, adjusted: float
) -> list[object]:
    differences = [100 * pair.difference for pair in pairs]
    if len(pairs) > 1:
        image_variance = 100**2 * sum(pair.variance for pair in pairs) / len(pairs)
        bounds = mean_interval(differences, image_variance)
        interval = [f"{max(-100.0, min(100.0, bound)):.2f}" for bound in bounds]  # a difference of two accuracies
    else:
        interval = ["", ""]
    return [
        line.row.task,
        metric,
        line.row.row,
        other.row.row,
        len(pairs),
        sum(pair.n for pair in pairs),
        sum(pair.only_first for pair in pairs),
        sum(pair.only_second for pair in pairs),
        f"{sum(differences) / len(differences):.2f}",
        *interval,
        MCNEMAR if len(pairs) == 1 else PAIRED_T,
        f"{p_value:.4g}",
        f"{adjusted:.4g}",
    ]
