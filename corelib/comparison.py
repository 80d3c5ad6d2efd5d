"""Whether two accuracies may be equal."""

from __future__ import annotations

from scipy.stats import fisher_exact

from corelib.metrics import Count


def probability_if_equal(ours: Count, theirs: Count) -> float:
    """Of two counts that differ at least as much as these, were the accuracies equal: Fisher's exact test."""
    table = [[count.k, count.n - count.k] for count in (ours, theirs)]
    return float(fisher_exact(table).pvalue)
