"""Significance: Fisher's exact test of two accuracies, its false alarms, and p values adjusted for their number."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln
from scipy.stats import binom, fisher_exact

from corelib.evaluation.metrics import Count

TIE_TOLERANCE = 1 + 1e-7
"""Outcomes whose probabilities differ by at most this factor count as equally probable: it allows for rounding."""


def fisher_p_value(ours: Count, theirs: Count) -> float:
    """Probability of counts that differ at least as much, if the accuracies are equal: Fisher's exact test."""
    table = [[count.k, count.n - count.k] for count in (ours, theirs)]
    return float(fisher_exact(table).pvalue)


def rejection_probability(n: int, o: int, share: float, level: float) -> float:
    """Probability that Fisher's exact test at `level` calls a count k of n and a count m of o different by chance.

    Both accuracies are `share`. Given the sum k + m, k is hypergeometric, whatever the accuracy is. The result is
    therefore the sum over k + m of its binomial probability times the probability of a rejection.
    """
    sums = binom.pmf(np.arange(n + o + 1), n + o, share)
    return float(sums @ _rejection_probabilities(n, o, level))


@functools.lru_cache(maxsize=64)
def _rejection_probabilities(n: int, o: int, level: float) -> NDArray[np.float64]:
    """The probability of a rejection for each sum of two counts with equal accuracies, (n + o + 1,)."""
    log_gamma = gammaln(np.arange(n + o + 2))  # log (i - 1)! at index i

    def log_choose(total: int, k: NDArray[np.int64]) -> NDArray[np.float64]:
        logarithm: NDArray[np.float64] = log_gamma[total + 1] - log_gamma[k + 1] - log_gamma[total - k + 1]
        return logarithm

    rejections = np.zeros(n + o + 1)
    for successes in range(n + o + 1):
        k = np.arange(max(0, successes - o), min(n, successes) + 1)
        probabilities = np.exp(
            log_choose(n, k) + log_choose(o, successes - k) - log_choose(n + o, np.array([successes]))  # hypergeometric
        )
        ranked = np.sort(probabilities)
        no_more_probable = np.searchsorted(ranked, probabilities * TIE_TOLERANCE, side="right")
        p_values = np.cumsum(ranked)[no_more_probable - 1]
        rejections[successes] = probabilities[p_values < level].sum()
    return rejections


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for their number, in the given order (Holm, Scandinavian Journal of Statistics 6:65, 1979).

    If all null hypotheses with adjusted values of at most 5 % are rejected, the probability of even one false rejection
    is at most 5 %, however the tests depend on each other.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def poisson_binomial_tail(chances: Sequence[float], min_count: int) -> float:
    """Probability that at least `min_count` of some independent events happen (Poisson binomial distribution)."""
    distribution = np.ones(1)
    for chance in chances:
        distribution = np.convolve(distribution, [1 - chance, chance])
    return float(min(1.0, distribution[min_count:].sum()))
