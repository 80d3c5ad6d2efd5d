"""Statistics over training seeds, against independent computations and by simulation."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from corelib.evaluation.metrics import Count
from corelib.evaluation.seed_statistics import (
    PairedCount,
    accuracy_interval,
    mean_interval,
    paired_p_value,
    prediction_p_value,
    standard_deviation,
)
from corelib.evaluation.significance import holm

values = st.lists(st.floats(min_value=0, max_value=100), min_size=2, max_size=6)


# Formulas


@given(values.filter(lambda values: np.std(values) > 1e-6))
def test_the_interval_of_a_mean_is_that_of_scipys_t_test(values):
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((expected.low, expected.high), abs=1e-8)


@given(values)
def test_the_standard_deviation_is_that_of_the_sample(values):
    assert standard_deviation(values) == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    assert standard_deviation(values[:1]) is None


def test_seeds_that_agree_by_chance_do_not_give_an_interval_without_width():
    low, high = accuracy_interval([Count(190, 200)] * 3)
    share = 572 / 604
    half = stats.norm.ppf(0.975) * (share * (1 - share) / 200 / 3) ** 0.5
    assert (low, high) == pytest.approx((95 - 100 * half, 95 + 100 * half))
    low, high = accuracy_interval([Count(200, 200)] * 3)
    assert 99 < low < 99.8 and high == 100


@given(p_values=st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=7))
def test_holm_is_the_closed_test_with_bonferroni(p_values):
    """A hypothesis is rejected if every intersection of hypotheses that contains it is, by Bonferroni's test."""
    indices = range(len(p_values))
    expected = [
        max(
            min(1.0, size * min(p_values[other] for other in subset))
            for size in range(1, len(p_values) + 1)
            for subset in combinations(indices, size)
            if index in subset
        )
        for index in indices
    ]
    assert holm(p_values) == pytest.approx(expected, abs=1e-12)


@given(first=st.integers(min_value=0, max_value=40), second=st.integers(min_value=0, max_value=40))
def test_one_seed_is_tested_by_mcnemars_exact_test(first, second):
    discordant = first + second
    tail = sum(comb(discordant, k) for k in range(min(first, second) + 1)) / 2**discordant
    expected = min(1.0, 2 * tail)
    assert paired_p_value([PairedCount(first, second, 100)]) == pytest.approx(expected)


def test_several_seeds_are_tested_by_the_t_test_of_their_differences():
    pairs = [PairedCount(40, 2, 200), PairedCount(10, 20, 200), PairedCount(70, 1, 200)]
    expected = stats.ttest_1samp([pair.difference for pair in pairs], 0).pvalue
    assert paired_p_value(pairs) == pytest.approx(expected)


def test_equal_small_differences_of_all_seeds_are_not_certain():
    assert paired_p_value([PairedCount(1, 0, 200)] * 3) > 0.05
    assert paired_p_value([PairedCount(0, 0, 200)] * 3) == 1
    assert paired_p_value([PairedCount(200, 0, 200)] * 3) < 1e-9


@given(
    hits=st.lists(st.integers(min_value=0, max_value=150), min_size=2, max_size=5),
    other=st.integers(min_value=0, max_value=150),
    data=st.data(),
)
def test_the_order_of_the_seeds_and_the_direction_do_not_matter(hits, other, data):
    counts = [Count(k, 150) for k in hits]
    shuffled = data.draw(st.permutations(counts))
    assert accuracy_interval(shuffled) == pytest.approx(accuracy_interval(counts))
    assert prediction_p_value(shuffled, Count(other, 150)) == pytest.approx(
        prediction_p_value(counts, Count(other, 150))
    )
    mirrored = [Count(150 - k, 150) for k in hits]
    assert prediction_p_value(mirrored, Count(150 - other, 150)) == pytest.approx(
        prediction_p_value(counts, Count(other, 150))
    )


@settings(deadline=None)
@given(hits=st.lists(st.integers(min_value=0, max_value=150), min_size=2, max_size=5, unique=True))
def test_the_test_of_the_paper_belongs_to_the_prediction_interval(hits):
    counts = [Count(k, 150) for k in hits]
    shares = np.array(hits) / 150
    for other in range(0, 151, 10):
        pooled = (sum(hits) + other + 2) / (150 * (len(hits) + 1) + 4)
        by_seeds = stats.t.ppf(0.975, len(hits) - 1) * shares.std(ddof=1)
        by_images = stats.norm.ppf(0.975) * (pooled * (1 - pooled) / 150) ** 0.5
        half = max(by_seeds, by_images) * (1 + 1 / len(hits)) ** 0.5
        is_inside = abs(other / 150 - shares.mean()) <= half
        assert (prediction_p_value(counts, Count(other, 150)) >= 0.05) == is_inside


# Coverage and false alarms, by simulation


def accuracies(draws: np.random.Generator, mean: float, between: float, shape: tuple[int, ...]) -> np.ndarray:
    """Accuracies of trained models: beta distributed with this mean and standard deviation between seeds."""
    if between == 0:
        return np.full(shape, mean)
    concentration = mean * (1 - mean) / between**2 - 1
    return draws.beta(mean * concentration, (1 - mean) * concentration, shape)


SKEWED = (0.97, 0.02)

CASES = [
    (mean, between, num_seeds, n)
    for mean, between in ((0.5, 0.1), (0.5, 0.02), (0.9, 0.05), SKEWED, (0.6, 0.0))
    for num_seeds, n in ((3, 60), (3, 500), (5, 180))
]


@pytest.mark.parametrize(("mean", "between", "num_seeds", "n"), CASES)
def test_the_interval_of_an_accuracy_covers_its_mean_in_95_of_100_cases(mean, between, num_seeds, n):
    draws, num_draws = np.random.default_rng(0), 3000
    hits = draws.binomial(n, accuracies(draws, mean, between, (num_draws, num_seeds)))
    intervals = [accuracy_interval([Count(int(k), n) for k in row]) for row in hits]
    covered = np.mean([low <= 100 * mean <= high for low, high in intervals])
    # near 100 % the distribution over seeds is skewed, and Student's t covers less (docs/results.md says so)
    assert (0.91 if (mean, between) == SKEWED else 0.93) < covered < 0.99


@pytest.mark.parametrize(("mean", "between", "num_seeds", "n"), CASES)
def test_equal_accuracies_differ_from_the_paper_in_at_most_5_of_100_cases(mean, between, num_seeds, n):
    draws, num_draws = np.random.default_rng(1), 3000
    hits = draws.binomial(n, accuracies(draws, mean, between, (num_draws, num_seeds + 1)))
    p_values = [prediction_p_value([Count(int(k), n) for k in row[1:]], Count(int(row[0]), n)) for row in hits]
    assert np.mean(np.array(p_values) < 0.05) < (0.07 if (mean, between) == SKEWED else 0.06)


@pytest.mark.parametrize(("num_seeds", "discordant"), [(1, 0.1), (3, 0.1), (3, 0.01), (5, 0.3)])
def test_equal_rows_differ_in_at_most_5_of_100_cases(num_seeds, discordant):
    draws, num_draws, n = np.random.default_rng(2), 3000, 200
    outcomes = draws.multinomial(n, [discordant / 2, discordant / 2, 1 - discordant], (num_draws, num_seeds))
    p_values = [paired_p_value([PairedCount(int(b), int(c), n) for b, c, _ in row]) for row in outcomes]
    assert np.mean(np.array(p_values) < 0.05) < 0.062


def test_holm_allows_one_false_alarm_in_twenty_tables():
    draws = np.random.default_rng(3)
    alarms = [min(holm(list(draws.uniform(size=63)))) < 0.05 for _ in range(4000)]
    assert np.mean(alarms) == pytest.approx(0.05, abs=0.012)
