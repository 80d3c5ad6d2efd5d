"""Statistics over training seeds.

The training seed is the unit of replication, not the image: the images of one trained model share its weights, and all
models draw the same prompts from the same noise. Intervals and tests are therefore those of S values, one for each
seed, with Student's t of S - 1 degrees of freedom.

The standard deviation of a few seeds can be far too small by chance, even zero. An interval is therefore never shorter,
and a p value never smaller, than that of a normal distribution with the variance that the finite number of images
alone causes. (The same correction of a t interval in meta-analysis: Wiksten, Ruecker and Schwarzer, Statistics in
Medicine 35:2503, 2016.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import pandas as pd
from scipy.stats import binomtest, norm
from scipy.stats import t as student_t

from corelib.evaluation.metrics import Count

CONFIDENCE = 0.95


@dataclass(frozen=True)
class PairedCount:
    """Two models on the same images: how many images only the first, or only the second, gets right.

    Attributes:
        only_first: images that only the first model gets right.
        only_second: images that only the second model gets right.
        n: number of images.
    """

    only_first: int
    only_second: int
    n: int

    @property
    def difference(self) -> float:
        """The accuracy of the first model minus that of the second."""
        return (self.only_first - self.only_second) / self.n

    @property
    def variance(self) -> float:
        """Variance of the difference that the finite number of images causes.

        The sample variance of a mean of paired differences, with half an image added to each of the four outcomes
        (Agresti and Min, Statistics in Medicine 24:729, 2005), so that it is never zero.
        """
        first, second, n = self.only_first + 0.5, self.only_second + 0.5, self.n + 2
        return ((first + second) - (first - second) ** 2 / n) / n**2


def mean_interval(values: Sequence[float], image_variance: float = 0.0) -> tuple[float, float]:
    """The 95 % interval of the mean over S seeds, with their standard deviation s.

    mean +- t s / sqrt(S), but at least mean +- z sqrt(image_variance / S).

    Args:
        values: one value for each seed; at least two.
        image_variance: the variance of a value that the finite number of images causes.
    """
    num_seeds, upper_tail = len(values), (1 - CONFIDENCE) / 2
    half = max(
        float(student_t.isf(upper_tail, num_seeds - 1)) * stdev(values),
        float(norm.isf(upper_tail)) * math.sqrt(image_variance),
    ) / math.sqrt(num_seeds)
    return fmean(values) - half, fmean(values) + half


def accuracy_interval(counts: Sequence[Count]) -> tuple[float, float]:
    """The 95 % interval of an accuracy's mean over seeds, in percent.

    Args:
        counts: the count of each seed; at least two.
    """
    low, high = mean_interval([count.k / count.n for count in counts], image_variance(counts, counts[0].n))
    return 100 * max(0.0, low), 100 * min(1.0, high)


def prediction_p_value(counts: Sequence[Count], other: Count) -> float:
    """The probability that the accuracy of one more training run differs at least as much from the mean over S seeds.

    The test that belongs to the prediction interval mean +- t s sqrt(1 + 1 / S) (Hahn and Meeker, Statistical
    Intervals, 1991, section 4.7).

    Args:
        counts: the count of each seed; at least two.
        other: the count of the other run.
    """
    shares, all_counts = [count.k / count.n for count in counts], [*counts, other]
    by_images = image_variance(all_counts, counts[0].n) / len(counts) + image_variance(all_counts, other.n)
    deviation = stdev(shares) * math.sqrt(1 + 1 / len(counts))
    return _p_value(other.k / other.n - fmean(shares), deviation, len(counts), by_images)


def paired_p_value(pairs: Sequence[PairedCount]) -> float:
    """The probability of differences at least as large between two models of equal accuracy, on the same images.

    One seed: McNemar's exact test (McNemar 1947), the binomial test of the images that only one model gets right.
    Several: Student's t test of the differences, one for each seed.
    """
    if len(pairs) == 1:
        discordant = pairs[0].only_first + pairs[0].only_second
        return float(binomtest(pairs[0].only_first, discordant).pvalue) if discordant else 1.0
    differences, num_seeds = [pair.difference for pair in pairs], len(pairs)
    return difference_p_value(differences, fmean(pair.variance for pair in pairs) / num_seeds)


def difference_p_value(differences: Sequence[float], image_variance: float) -> float:
    """The p value of a mean difference from zero.

    Args:
        differences: the difference for each training seed.
        image_variance: the variance of their mean that the finite number of images causes; 0 if it is not known.
            Nothing can be said of a single difference then: the p value is 1.
    """
    if len(differences) == 1 and image_variance == 0:
        return 1.0
    deviation = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return _p_value(fmean(differences), deviation, len(differences), image_variance)


def pooled(counts: Sequence[Count]) -> Count:
    """The images of all training seeds together."""
    return Count(sum(count.k for count in counts), sum(count.n for count in counts))


def paired_count(first: pd.Series[bool], second: pd.Series[bool]) -> PairedCount:
    """The paired count of two models, from which images each gets right."""
    second = second.reindex(first.index)
    return PairedCount(int((first & ~second).sum()), int((~first & second).sum()), len(first))


def standard_deviation(values: Sequence[float]) -> float | None:
    """The sample standard deviation over seeds; None for one seed."""
    return stdev(values) if len(values) > 1 else None


def _p_value(difference: float, deviation: float, num_seeds: int, image_variance: float) -> float:
    """The p value of a difference from zero: the larger of those of the t and of the normal distribution.

    Args:
        difference: the difference.
        deviation: its standard deviation, estimated from `num_seeds` values.
        num_seeds: number of seeds.
        image_variance: its variance that the finite number of images causes; 0 if it is not known.
    """
    if difference == 0:
        return 1.0
    by_images = 2 * norm.sf(abs(difference) / math.sqrt(image_variance)) if image_variance else 0.0
    by_seeds = 2 * student_t.sf(abs(difference) / deviation, num_seeds - 1) if deviation else 0.0
    return float(max(by_images, by_seeds))


def image_variance(counts: Sequence[Count], n: int) -> float:
    """Variance of an accuracy over `n` images if all counts have the same accuracy.

    Two images of each outcome are added (Agresti and Coull, The American Statistician 52:119, 1998), so that it is
    never zero.
    """
    together = pooled(counts)
    share = (together.k + 2) / (together.n + 4)
    return share * (1 - share) / n
