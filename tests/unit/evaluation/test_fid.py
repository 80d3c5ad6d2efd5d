"""The Frechet distance, compared with clean-fid and with a computation from eigenvalues."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cleanfid import fid as cleanfid
from hypothesis import given, settings
from hypothesis import strategies as st

from corelib.errors import AssetError
from corelib.evaluation.fid import frechet_distance

seeds = st.integers(min_value=0, max_value=2**32 - 1)


def features(count: int, dimensions: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    """Correlated features with a spectrum as uneven as those of a network, (count, dimensions) in fp64."""
    draws = np.random.default_rng(seed)
    mixing = draws.normal(size=(dimensions, dimensions)) / np.sqrt(dimensions)
    scales = np.linspace(1.0, 0.2, dimensions)
    return torch.from_numpy(draws.normal(size=(count, dimensions)) * scales @ mixing + shift * draws.normal())


def statistics(values: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    return values.numpy().mean(axis=0), np.cov(values.numpy(), rowvar=False)


def distance_by_eigenvalues(first: torch.Tensor, second: torch.Tensor) -> float:
    """The definition, with the trace of the root from the eigenvalues of the symmetric S_1^(1/2) S_2 S_1^(1/2)."""
    (mean_1, cov_1), (mean_2, cov_2) = statistics(first), statistics(second)
    values, vectors = np.linalg.eigh(cov_1)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    trace_of_root = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cov_2 @ root), 0, None)).sum()
    return float(((mean_1 - mean_2) ** 2).sum() + np.trace(cov_1) + np.trace(cov_2) - 2 * trace_of_root)


@pytest.mark.parametrize(("sampled", "real", "dimensions"), [(200, 300, 16), (90, 400, 48), (500, 120, 64)])
def test_the_distance_equals_that_of_clean_fid_if_both_covariances_are_regular(sampled, real, dimensions):
    first, second = features(sampled, dimensions, 1), features(real, dimensions, 2, shift=0.3)
    (mean_1, cov_1), (mean_2, cov_2) = statistics(first), statistics(second)
    theirs = cleanfid.frechet_distance(mean_1, cov_1, mean_2, cov_2)
    assert frechet_distance(first, second) == pytest.approx(theirs, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    sampled=st.integers(min_value=2, max_value=40),
    real=st.integers(min_value=2, max_value=40),
    dimensions=st.integers(min_value=2, max_value=60),
    seed=seeds,
)
def test_the_distance_equals_that_from_eigenvalues_even_with_fewer_images_than_features(
    sampled, real, dimensions, seed
):
    first, second = features(sampled, dimensions, seed), features(real, dimensions, seed + 1, shift=1.0)
    distance = frechet_distance(first, second)
    assert np.isfinite(distance)
    # square roots of eigenvalues that should be zero are accurate to about the square root of the machine precision
    assert distance == pytest.approx(distance_by_eigenvalues(first, second), rel=1e-6, abs=1e-5)


def test_the_distance_of_few_images_with_many_features_is_finite_and_right():
    first, second = features(20, 512, 3), features(30, 512, 4, shift=0.1)
    assert frechet_distance(first, second) == pytest.approx(distance_by_eigenvalues(first, second), rel=1e-6)


def test_the_distance_of_one_dimensional_gaussians_follows_the_textbook_formula():
    first, second = features(50, 1, 5), features(80, 1, 6, shift=2.0)
    expected = (first.mean() - second.mean()) ** 2 + (first.std() - second.std()) ** 2
    assert frechet_distance(first, second) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize(("count", "dimensions"), [(2, 5), (10, 40), (200, 20)])
def test_the_distance_of_a_set_from_itself_is_zero(count, dimensions):
    values = features(count, dimensions, 7)
    assert frechet_distance(values, values.clone()) == pytest.approx(0.0, abs=1e-10)


def test_the_distance_of_a_shifted_set_is_the_squared_length_of_the_shift():
    values = features(100, 12, 8)
    shift = torch.linspace(-1, 1, 12, dtype=torch.float64)
    assert frechet_distance(values, values + shift) == pytest.approx(float(shift.square().sum()), rel=1e-9)


@pytest.mark.parametrize(("sampled", "real", "dimensions"), [(30, 50, 8), (12, 7, 40), (60, 20, 30)])
def test_the_distance_is_symmetric(sampled, real, dimensions):
    first, second = features(sampled, dimensions, 9), features(real, dimensions, 10, shift=0.5)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(24)), dimensions=st.sampled_from([4, 60]))
def test_the_order_of_the_images_does_not_matter(order, dimensions):
    first, second = features(24, dimensions, 11), features(24, dimensions, 12, shift=0.5)
    expected = frechet_distance(first, second)
    assert frechet_distance(first[list(order)], second) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(first, second[list(order)]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("sampled", "real"), [(1, 5), (5, 1), (0, 5)])
def test_the_distance_of_fewer_than_two_images_is_an_error(sampled, real):
    expected = f"FID of {sampled} sampled and {real} real images, expected at least two of each"
    with pytest.raises(AssetError, match=expected):
        frechet_distance(features(sampled, 4, 13), features(real, 4, 14))
