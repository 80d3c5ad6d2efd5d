"""The lines of a table: the numbers of a row for one task, from the cells of the models of its training seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal

from corelib.evaluation.metrics import ACCURACIES, Count
from corelib.evaluation.predictions import is_judged
from corelib.evaluation.seed_statistics import accuracy_interval, mean_interval, pooled, standard_deviation
from corelib.reports.seed_numbers import METRICS, SeedNumbers, seed_numbers
from corelib.runs.manifest import Manifest
from corelib.settings.reports import TableRow

Kind = Literal["style", "object"]

KINDS: tuple[Kind, ...] = ("style", "object")

WILSON = "Wilson"
"""The kind of an interval over the images of one model."""


@dataclass(frozen=True)
class TableLine:
    """One line of a table: a row for one task, with the numbers of each training seed."""

    row: TableRow
    seeds: Sequence[SeedNumbers]

    @property
    def metrics(self) -> list[str]:
        """The metrics that are measured: all of the paper's, or those for which the world has a judge."""
        return [metric for metric in METRICS if metric in self.seeds[0].values]

    @property
    def judged_kinds(self) -> list[Kind]:
        """The kinds of names that a classifier of the world recognises in the images of this line."""
        return [kind for kind in KINDS if is_judged(self.seeds[0].grid, kind)]

    @property
    def remark(self) -> str:
        """Warnings about the numbers of the line, with the seed if there are several; empty if there are none."""
        if len(self.seeds) == 1:
            return self.seeds[0].remark
        return "; ".join(f"seed {numbers.seed}: {numbers.remark}" for numbers in self.seeds if numbers.remark)

    @property
    def title(self) -> str:
        """The title of the row without line breaks, followed by the remark."""
        title = self.row.plain_title
        return f"{title} ({self.remark})" if self.remark else title

    @property
    def means(self) -> dict[str, Decimal]:
        """The mean over seeds of each measured metric, rounded half up to two decimals.

        The mean accuracy is that of the pooled counts; means of SFID and Total are those of the rounded values.
        """
        return {
            metric: self.pooled(metric).percent if metric in ACCURACIES else _mean(self._values(metric))
            for metric in self.metrics
        }

    @property
    def deviations(self) -> dict[str, float | None]:
        """The sample standard deviation over seeds of each measured metric; None for one seed."""
        return {
            metric: standard_deviation(
                [100 * count.k / count.n for count in self.counts(metric)]
                if metric in ACCURACIES
                else [float(value) for value in self._values(metric)]
            )
            for metric in self.metrics
        }

    def counts(self, metric: str) -> list[Count]:
        """The counts of an accuracy, one for each seed."""
        return [numbers.counts[metric] for numbers in self.seeds]

    def pooled(self, metric: str) -> Count:
        """The images of all seeds together."""
        return pooled(self.counts(metric))

    def interval(self, metric: str) -> tuple[float, float] | None:
        """The 95 % interval of a metric, of the kind `interval_name`; None for SFID and Total of one seed."""
        if metric in ACCURACIES:
            counts = self.counts(metric)
            return counts[0].interval() if len(counts) == 1 else accuracy_interval(counts)
        values = [float(value) for value in self._values(metric)]
        return None if len(values) == 1 else mean_interval(values)

    @property
    def interval_name(self) -> str:
        """The kind of interval: Wilson's over the images of one seed, or Student's t over several seeds."""
        return WILSON if len(self.seeds) == 1 else f"t over {len(self.seeds)} seeds"

    def _values(self, metric: str) -> list[Decimal]:
        return [numbers.values[metric] for numbers in self.seeds]

    @property
    def may_be_best(self) -> bool:
        """Whether the line competes for the best Total: it is not the original model, and its Total is not in doubt."""
        total = self.means.get("Total")
        return not self.row.is_original and not self.remark and total is not None and total.is_finite()


def table_line(row: TableRow, inputs: Mapping[str, Manifest]) -> TableLine:
    """The line of a row.

    Args:
        row: the row, with the roles of its cells.
        inputs: the manifests of cells, by role.
    """
    return TableLine(row, [seed_numbers(seed.seed, inputs[seed.cells]) for seed in row.seeds])


def by_task(lines: Sequence[TableLine]) -> dict[str, list[TableLine]]:
    """The lines of each task, in the order of the table."""
    tasks: dict[str, list[TableLine]] = {}
    for line in lines:
        tasks.setdefault(line.row.task, []).append(line)
    return tasks


def measured_metrics(lines: Sequence[TableLine]) -> list[str]:
    """The metrics that any of the lines has, in the paper's order."""
    return [metric for metric in METRICS if any(metric in line.metrics for line in lines)]


def _mean(values: Sequence[Decimal]) -> Decimal:
    return (sum(values, Decimal(0)) / len(values)).quantize(Decimal("0.01"), ROUND_HALF_UP)
