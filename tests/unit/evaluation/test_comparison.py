"""Verdicts: how often Fisher's exact test calls equal accuracies different."""

from __future__ import annotations

from itertools import product
from math import comb, prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corelib.evaluation.metrics import Count
from corelib.evaluation.significance import (
    fisher_p_value,
    poisson_binomial_tail,
    rejection_probability,
)

sizes = st.integers(min_value=1, max_value=14)


def differs(k: int, n: int, m: int, o: int, level: float = 0.05) -> bool:
    return fisher_p_value(Count(k, n), Count(m, o)) < level


def binomial(k: int, n: int, share: float) -> float:
    return comb(n, k) * share**k * (1 - share) ** (n - k)


@settings(max_examples=40, deadline=None)
@given(n=sizes, o=sizes, thousandths=st.integers(min_value=0, max_value=1000))
def test_the_probability_of_a_false_difference_is_the_sum_over_all_pairs_of_counts(n, o, thousandths):
    share = thousandths / 1000
    expected = sum(
        binomial(k, n, share) * binomial(m, o, share)
        for k, m in product(range(n + 1), range(o + 1))
        if differs(k, n, m, o, 0.19)
    )
    assert rejection_probability(n, o, share, 0.19) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("n", "o", "share"), [(30, 30, 0.5), (30, 30, 0.9), (60, 60, 0.85), (150, 150, 0.3), (60, 120, 0.7)]
)
def test_the_probability_of_a_false_difference_equals_that_of_a_simulation(n, o, share):
    draws = np.random.default_rng(0)
    num_draws = 200_000
    pairs, times = np.unique(
        np.stack([draws.binomial(n, share, num_draws), draws.binomial(o, share, num_draws)], axis=1),
        axis=0,
        return_counts=True,
    )
    num_different = sum(int(count) for (k, m), count in zip(pairs, times, strict=True) if differs(int(k), n, int(m), o))
    expected = rejection_probability(n, o, share, 0.05)
    assert 0 < expected < 0.05, "Fisher's exact test is conservative"
    assert num_different / num_draws == pytest.approx(expected, abs=5 * (expected / num_draws) ** 0.5)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_accuracies_of_0_and_1_never_differ_by_chance(share):
    assert rejection_probability(500, 520, share, 0.05) == 0


@pytest.mark.parametrize(("n", "o"), [(500, 500), (520, 520), (1020, 1020)])
def test_the_largest_grids_stay_below_the_level_of_the_test(n, o):
    assert 0.02 < rejection_probability(n, o, 0.5, 0.05) < 0.05


@settings(max_examples=60, deadline=None)
@given(chances=st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=7), data=st.data())
def test_the_tail_is_the_sum_over_all_outcomes_of_independent_cells(chances, data):
    min_count = data.draw(st.integers(min_value=0, max_value=len(chances) + 1))
    expected = sum(
        prod(chance if happens else 1 - chance for chance, happens in zip(chances, outcome, strict=True))
        for outcome in product((False, True), repeat=len(chances))
        if sum(outcome) >= min_count
    )
    assert poisson_binomial_tail(chances, min_count) == pytest.approx(expected, abs=1e-12)
