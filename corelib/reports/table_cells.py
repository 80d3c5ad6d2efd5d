"""The numbers behind a table, one line each: counts, intervals, comparison with the paper's values, provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass

from corelib.evaluation.metrics import ACCURACIES, Count
from corelib.evaluation.seed_statistics import holm, prediction_p_value
from corelib.evaluation.significance import fisher_p_value, poisson_binomial_tail, rejection_probability
from corelib.files.csv_files import as_csv
from corelib.reports.seed_numbers import METRICS
from corelib.reports.table_lines import TableLine

CELL_COLUMNS = (
    "task", "row", "metric", "seed", "k", "n", "value", "sd", "low", "high", "interval",
    "published", "published_k", "published_n", "test", "p", "p_holm", "verdict", "verdict_holm",
    "diverged_at", "flagged", "gate", "run",
)  # fmt: skip

ORIGIN_COLUMNS = ("task", "row", "metric", "stage", "run", "commit", "device", "host", "finished")

ALL_SEEDS = "all"
"""The entry in the column `seed` of a line for all training seeds together."""

SIGNIFICANCE = 0.05

NOT_COMPARABLE = "not comparable"

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
        f"Of {len(comparisons)} accuracies that the paper also prints, {differing} {differ} ({names} at 5 %); "
        f"{by_holm} of them also by Holm's method, which allows one false alarm in 20 tables. If all were equal, "
        f"{sum(chances):.2g} would differ by chance; {differing} or more with a probability of "
        f"{poisson_binomial_tail(chances, differing):.2g} (accuracies taken as independent)."
    )


def cells_csv(
    lines: Sequence[TableLine],
    published: PublishedNumbers,
    comparisons: Mapping[tuple[str, str, str], Comparison],
    gate: str,
) -> str:
    """Every number as CSV.

    A row with several training seeds has a line for each seed and one for all; only the latter is compared with the
    paper.

    Args:
        lines: the lines of the table.
        published: the paper's numbers.
        comparisons: the comparisons of `compare_with_paper`; empty if our numbers are not comparable with the paper's.
        gate: the outcome of the gate.
    """
    return as_csv([CELL_COLUMNS, *(cell for line in lines for cell in _cells(line, published, comparisons, gate))])


def _cells(
    line: TableLine,
    published: PublishedNumbers,
    comparisons: Mapping[tuple[str, str, str], Comparison],
    gate: str,
) -> Iterator[list[object]]:
    for metric in METRICS:
        key = (line.row.task, line.row.row, metric)
        if len(line.seeds) > 1:
            for numbers in line.seeds:
                alone = TableLine(line.row, [numbers])
                yield [*key, *_numbers(alone, metric), *[""] * 8, *_warnings(alone), gate, numbers.run]
        yield [
            *key,
            *_numbers(line, metric),
            *_comparison(published.get(key), comparisons.get(key)),
            *_warnings(line),
            gate,
            " ".join(numbers.run for numbers in line.seeds),
        ]


def _numbers(line: TableLine, metric: str) -> list[object]:
    count = line.pooled(metric) if metric in ACCURACIES else None
    deviation, interval = line.deviations[metric], line.interval(metric)
    first = line.seeds[0].seed
    seed: object = ALL_SEEDS if len(line.seeds) > 1 else "" if first is None else first
    return [
        seed,
        count.k if count else "",
        count.n if count else "",
        f"{line.means[metric]:.2f}",
        "" if deviation is None else f"{deviation:.2f}",
        *(["", "", ""] if interval is None else [f"{interval[0]:.2f}", f"{interval[1]:.2f}", line.interval_name]),
    ]


def _comparison(theirs: Published | None, comparison: Comparison | None) -> list[object]:
    count = theirs.count if theirs else None
    published = [theirs.value if theirs else "", count.k if count else "", count.n if count else ""]
    if comparison is None:
        return [*published, "", "", "", NOT_COMPARABLE, NOT_COMPARABLE]
    return [
        *published,
        comparison.test,
        f"{comparison.p_value:.4g}",
        f"{comparison.adjusted:.4g}",
        verdict(comparison.differs),
        verdict(comparison.differs_by_holm),
    ]


def verdict(differs: bool) -> str:
    """The word for the outcome of a test."""
    return "differs" if differs else "compatible"


def _warnings(line: TableLine) -> list[object]:
    diverged = [numbers.diverged_at for numbers in line.seeds if numbers.diverged_at is not None]
    return [" ".join(map(str, diverged)), sum(numbers.flagged for numbers in line.seeds)]


def provenance_csv(lines: Sequence[TableLine]) -> str:
    """Every job that contributed to a number as CSV: its run, commit, device, host and time."""
    return as_csv(
        [
            ORIGIN_COLUMNS,
            *(
                [line.row.task, line.row.row, metric, *astuple(origin)]
                for line in lines
                for metric in METRICS
                for origin in dict.fromkeys(job for numbers in line.seeds for job in numbers.jobs_behind(metric))
            ),
        ]
    )
