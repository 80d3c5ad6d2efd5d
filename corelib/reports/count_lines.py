"""The lines of a report that counts images: the counts of each training seed and style, and of all together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from corelib.evaluation.metrics import Count
from corelib.evaluation.seed_statistics import pooled
from corelib.reports.count_intervals import interval_name, share_interval
from corelib.reports.jobs_behind import JobProvenance
from corelib.reports.remarks import remark_on

COUNT_COLUMNS = ("seed", "style", "k", "n", "value", "low", "high", "interval", "flagged", "diverged_at")
"""The columns of a CSV file that contain a count."""

ALL = "all"
"""The entry in the columns `seed` and `style` of a line for all of them together."""


@dataclass(frozen=True)
class SeedCounts:
    """The counts of one model.

    Attributes:
        seed: its training seed; None for a model that is not trained here.
        run: the name of its run of the stage `predictions`.
        styles: the count of the images of each style.
        flagged: number of images that are constant or not finite.
        diverged_at: the step at which the training of the model, or that of an earlier task, diverged, if it did.
        search_diverged_at: the step at which the search of a probe diverged, if it did; its result is that of the steps
            before.
        origins: the jobs behind the counts.
    """

    seed: int | None
    run: str
    styles: Mapping[str, Count]
    flagged: int
    diverged_at: int | None
    search_diverged_at: int | None
    origins: Sequence[JobProvenance]

    @property
    def remark(self) -> str:
        """Warnings about the counts; empty if there are none."""
        steps = {"the training of the model": self.diverged_at, "the search": self.search_diverged_at}
        return remark_on(steps, self.flagged)


@dataclass(frozen=True)
class CountLine:
    """A line of a report, with the counts of each training seed."""

    seeds: Sequence[SeedCounts]

    @property
    def styles(self) -> list[str]:
        """The styles that are counted."""
        return list(self.seeds[0].styles)

    def counts(self, style: str | None = None) -> list[Count]:
        """The count of each seed, of a style or of all together."""
        return [pooled(list(seed.styles.values())) if style is None else seed.styles[style] for seed in self.seeds]

    def interval(self, style: str | None = None) -> tuple[float, float]:
        """The 95 % interval of the share, in percent."""
        return share_interval(self.counts(style))

    @property
    def remark(self) -> str:
        """Warnings about the counts, with the seed if there are several; empty if there are none."""
        if len(self.seeds) == 1:
            return self.seeds[0].remark
        return "; ".join(f"seed {seed.seed}: {seed.remark}" for seed in self.seeds if seed.remark)


def counts_by_style(correct: pd.Series[bool]) -> dict[str, Count]:
    """The count of each style.

    Args:
        correct: the images that count, by (style, object, seed) (`corelib.evaluation.metrics.correct_images`).
    """
    counted = correct.groupby(level="style", sort=False).agg(["sum", "size"])
    return {str(style): Count(int(row["sum"]), int(row["size"])) for style, row in counted.iterrows()}


def count_entries(line: CountLine) -> Iterator[tuple[list[object], Sequence[SeedCounts]]]:
    """The entries of a line in `COUNT_COLUMNS` and the seeds that they count.

    The order is by style, with all styles last; for each, by training seed, with all seeds last if there are several.
    """
    for style in (*line.styles, None):
        parts = [CountLine([seed]) for seed in line.seeds]
        for part in [*parts, line] if len(parts) > 1 else parts:
            counts = part.counts(style)
            count, (low, high) = pooled(counts), part.interval(style)
            yield (
                [
                    ALL if part is line else _or_empty(part.seeds[0].seed),
                    ALL if style is None else style,
                    *(count.k, count.n, f"{count.percent:.2f}", f"{low:.2f}", f"{high:.2f}", interval_name(counts)),
                    sum(seed.flagged for seed in part.seeds),
                    in_one_entry(seed.diverged_at for seed in part.seeds),
                ],
                part.seeds,
            )


def in_one_entry(values: Iterable[object]) -> str:
    """Values separated by spaces, without those that are None."""
    return " ".join(str(value) for value in values if value is not None)


def _or_empty(seed: int | None) -> object:
    return "" if seed is None else seed
