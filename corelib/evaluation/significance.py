"""Whether two accuracies may be equal, and how often a test would call equal ones different."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln
from scipy.stats import binom, fisher_exact

from corelib.evaluation.metrics import Count

TIE = 1 + 1e-7
"""Outcomes whose probabilities differ by no more than this factor are equally probable, but for rounding."""


@dataclass(frozen=True)
class FalseDifferences:
    """Of some pairs of counts, how many differ, and how many would by chance alone.

    Attributes:
        pairs: number of pairs.
        differing: number of pairs that the test calls different.
        expected: number of pairs that it would call different on average, were the accuracies of each pair equal.
        at_least_as_many: probability of `differing` or more of them then, were the pairs independent.
    """

    pairs: int
    differing: int
    expected: float
    at_least_as_many: float


def probability_if_equal(ours: Count, theirs: Count) -> float:
    """Of two counts that differ at least as much as these, were the accuracies equal: Fisher's exact test."""
    table = [[count.k, count.n - count.k] for count in (ours, theirs)]
    return float(fisher_exact(table).pvalue)


def false_differences(pairs: Sequence[tuple[Count, Count]], level: float) -> FalseDifferences:
    """The differences among pairs of counts, and those that chance alone would give.

    The accuracy that both counts of a pair are taken to have is the one they have together.
    """
    differing = sum(probability_if_equal(*pair) < level for pair in pairs)
    chances = [
        probability_of_difference(ours.n, theirs.n, (ours.k + theirs.k) / (ours.n + theirs.n), level)
        for ours, theirs in pairs
    ]
    return FalseDifferences(len(pairs), differing, sum(chances), tail(chances, differing))


def probability_of_difference(n: int, o: int, share: float, level: float) -> float:
    """The probability that Fisher's exact test at `level` calls a count of n and one of o different by chance.

    Both accuracies are `share`. Given k + m, the sum of the counts, k is hypergeometric whatever the accuracy is, so
    the probability is the sum over k + m of its binomial probability times that of a rejection.
    """
    sums = binom.pmf(np.arange(n + o + 1), n + o, share)
    return float(sums @ _rejections(n, o, level))


@functools.lru_cache(maxsize=64)
def _rejections(n: int, o: int, level: float) -> NDArray[np.float64]:
    """The probability of a rejection for each sum of two counts with equal accuracies, (n + o + 1,)."""
    logarithms = gammaln(np.arange(n + o + 2))  # of (i - 1)!

    def choose(total: int, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = logarithms[total + 1] - logarithms[chosen + 1] - logarithms[total - chosen + 1]
        return found

    found = np.zeros(n + o + 1)
    for successes in range(n + o + 1):
        k = np.arange(max(0, successes - o), min(n, successes) + 1)
        probabilities = np.exp(
            choose(n, k) + choose(o, successes - k) - choose(n + o, np.array([successes]))  # hypergeometric
        )
        ranked = np.sort(probabilities)
        no_more_probable = np.searchsorted(ranked, probabilities * TIE, side="right")
        p_values = np.cumsum(ranked)[no_more_probable - 1]
        found[successes] = probabilities[p_values < level].sum()
    return found


def tail(chances: Sequence[float], least: int) -> float:
    """The probability that at least so many of some independent events happen (the Poisson binomial distribution)."""
    distribution = np.ones(1)
    for chance in chances:
        distribution = np.convolve(distribution, [1 - chance, chance])
    return float(min(1.0, distribution[least:].sum()))
