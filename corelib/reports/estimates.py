"""Numbers with their uncertainty, from our rows or from the paper's counts, and differences between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import pandas as pd

from corelib.evaluation.metrics import ACCURACIES, Count
from corelib.evaluation.seed_statistics import difference_p_value, image_variance, paired_count
from corelib.reports.paper_comparison import Published, PublishedNumbers
from corelib.reports.table_lines import TableLine


@dataclass(frozen=True)
class Estimate:
    """A metric of a row.

    Attributes:
        label: the row, or another word for the number.
        values: its value in percent, by training seed; the seed is None for the paper and for the original model.
        image_variance: the variance of one value that the finite number of images causes, in squared percent. SFID has
            no such estimate and counts as exact.
        correct: which images are right in the sense of the metric, by training seed; empty if that is not known.
    """

    label: str
    values: Mapping[int | None, float]
    image_variance: float
    correct: Mapping[int | None, pd.Series[bool]] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """The mean over training seeds."""
        return fmean(self.values.values())


@dataclass(frozen=True)
class Difference:
    """A sum of estimates with signs, which a check compares with zero.

    Attributes:
        label: the difference in words.
        value: its mean over the common training seeds, in percent points.
        p_value: probability of a value at least as far from zero if the true value is zero. It is 1 if nothing is
            known about the uncertainty.
    """

    label: str
    value: float
    p_value: float


def estimate_of_line(line: TableLine, metric: str) -> Estimate:
    """A metric of one of our rows."""
    variances = {
        name: 100**2 * image_variance(line.counts(name), line.counts(name)[0].n) for name in line.seeds[0].counts
    }
    return Estimate(
        line.row.row,
        {numbers.seed: float(numbers.values[metric]) for numbers in line.seeds},
        _variance_of(metric, variances),
        {numbers.seed: numbers.correct[metric] for numbers in line.seeds} if metric in ACCURACIES else {},
    )


def estimate_of_paper(published: PublishedNumbers, task: str, row: str, metric: str) -> Estimate | None:
    """A metric of a row of the paper; None if the paper does not have it."""
    found: dict[str, Published] = {
        name: published[task, row, name] for name in (*ACCURACIES, metric) if (task, row, name) in published
    }
    if metric not in found:
        return None
    variances = {
        name: 100**2 * image_variance([number.count], number.count.n)
        for name, number in found.items()
        if isinstance(number.count, Count)
    }
    return Estimate(row, {None: float(found[metric].value)}, _variance_of(metric, variances))


def _variance_of(metric: str, variances: Mapping[str, float]) -> float:
    """The variance of a metric from those of the accuracies; Total is a sum of independent metrics."""
    return sum(variances.values()) if metric == "Total" else variances.get(metric, 0.0)


def difference(label: str, terms: Sequence[tuple[int, Estimate]], offset: float = 0.0) -> Difference | None:
    """The sum of estimates times their signs, plus an offset; None if the rows have no training seed in common.

    Seeds are paired. Two accuracies of the same images are compared image by image.

    Args:
        label: the difference in words.
        terms: signs and estimates.
        offset: number to add, in percent points.
    """
    seeds = _common_seeds([estimate for _, estimate in terms])
    if not seeds:
        return None
    values = [
        sum(sign * estimate.values[seed if seed in estimate.values else None] for sign, estimate in terms) + offset
        for seed in seeds
    ]
    return Difference(label, fmean(values), difference_p_value(values, _variance_of_difference(terms, seeds)))


def _common_seeds(estimates: Sequence[Estimate]) -> list[int | None]:
    trained = [set(estimate.values) for estimate in estimates if None not in estimate.values]
    return sorted(set.intersection(*trained), key=str) if trained else [None]


def _variance_of_difference(terms: Sequence[tuple[int, Estimate]], seeds: Sequence[int | None]) -> float:
    """The variance of the mean over seeds that the finite number of images causes."""
    if len(terms) == 2 and all(estimate.correct for _, estimate in terms):
        (_, first), (_, second) = terms
        pairs = [(_of_seed(first.correct, seed), _of_seed(second.correct, seed)) for seed in seeds]
        if all(one.index.equals(other.index) for one, other in pairs):
            return 100**2 * fmean(paired_count(*pair).variance for pair in pairs) / len(seeds)
    return sum(estimate.image_variance / (1 if None in estimate.values else len(seeds)) for _, estimate in terms)


def _of_seed(by_seed: Mapping[int | None, pd.Series[bool]], seed: int | None) -> pd.Series[bool]:
    return by_seed[seed if seed in by_seed else None]
