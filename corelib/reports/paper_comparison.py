"""Comparison of our accuracies with the paper's, and how many differences to expect by chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corelib.evaluation.metrics import ACCURACIES, Count
from corelib.evaluation.seed_statistics import prediction_p_value
from corelib.evaluation.significance import fisher_p_value, holm, poisson_binomial_tail, rejection_probability
from corelib.reports.table_lines import TableLine

SIGNIFICANCE = 0.05

FISHER, PREDICTION = "Fisher", "prediction"
"""The tests of a published accuracy: against the count of one seed, or against the values of several."""


@dataclass(frozen=True)
class Published:
    """A number of the paper, with its count if it is an accuracy."""

    value: str
    count: Count | None


PublishedNumbers = Mapping[tuple[str, str, str], Published]
"""The paper's numbers by (task, row, metric)."""


@dataclass(frozen=True)
class Comparison:
    """The comparison of an accuracy with the paper's.

    Attributes:
        counts: our count of each training seed.
        published: the paper's count, which is of one training run.
        p_value: probability of a difference at least as large, if the accuracies are equal.
        adjusted: the same by Holm's method over all comparisons of the table.
    """

    counts: Sequence[Count]
    published: Count
    p_value: float
    adjusted: float

    @property
    def test(self) -> str:
        """The name of the test."""
        return FISHER if len(self.counts) == 1 else PREDICTION

    @property
    def differs(self) -> bool:
        """Whether the accuracies differ at 5 %."""
        return self.p_value < SIGNIFICANCE

    @property
    def differs_by_holm(self) -> bool:
        """Whether the accuracies differ at 5 % for the table as a whole."""
        return self.adjusted < SIGNIFICANCE

    @property
    def chance(self) -> float:
        """Probability that equal accuracies are called different: at most 5 %, for Fisher's test by how much less."""
        if len(self.counts) > 1:
            return SIGNIFICANCE
        (ours,), theirs = self.counts, self.published
        return rejection_probability(ours.n, theirs.n, (ours.k + theirs.k) / (ours.n + theirs.n), SIGNIFICANCE)


def read_published(numbers: list[list[str]]) -> dict[tuple[str, str, str], Published]:
    """The paper's numbers, given as (task, row, metric, value, k, n), by (task, row, metric)."""
    return {
        (task, row, metric): Published(value, Count(int(k), int(n)) if k and n else None)
        for task, row, metric, value, k, n in numbers
    }


def compare_with_paper(
    lines: Sequence[TableLine], published: PublishedNumbers
) -> dict[tuple[str, str, str], Comparison]:
    """The comparison of each accuracy that the paper also has, by (task, row, metric)."""
    pairs = {
        (line.row.task, line.row.row, metric): (line.counts(metric), theirs.count)
        for line in lines
        for metric in ACCURACIES
        if (theirs := published.get((line.row.task, line.row.row, metric))) is not None and theirs.count is not None
    }
    p_values = [
        fisher_p_value(ours[0], theirs) if len(ours) == 1 else prediction_p_value(ours, theirs)
        for ours, theirs in pairs.values()
    ]
    adjusted = holm(p_values)
    return {
        key: Comparison(ours, theirs, p_value, by_holm)
        for (key, (ours, theirs)), p_value, by_holm in zip(pairs.items(), p_values, adjusted, strict=True)
    }


def chance_note(comparisons: Sequence[Comparison]) -> str:
    """A note on how many accuracies differ from the published ones, and how many would by chance; may be empty."""
    if not comparisons:
        return ""
    differing, by_holm = sum(one.differs for one in comparisons), sum(one.differs_by_holm for one in comparisons)
    chances = [one.chance for one in comparisons]
    tests = {FISHER: "Fisher's exact test", PREDICTION: "the prediction interval of the seeds"}
    names = " and ".join(tests[name] for name in sorted({one.test for one in comparisons}))
    differ = "differs" if differing == 1 else "differ"
    return (
        f"Of {len(comparisons)} accuracies that the paper also reports, {differing} {differ} ({names} at 5 %); "
        f"{by_holm} of them also after Holm's correction, which allows one false positive in 20 tables. If all true "
        f"accuracies were equal, {sum(chances):.2g} would differ by chance on average, and {differing} or more with a "
        f"probability of {poisson_binomial_tail(chances, differing):.2g} (assuming independent accuracies)."
    )


def verdict(differs: bool) -> str:
    """The word for the outcome of a test."""
    return "differs" if differs else "compatible"
