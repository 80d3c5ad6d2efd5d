"""What the models of a table draw: accuracy by style and by object, and what each style is recognised as."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from corelib.evaluation.metrics import Count
from corelib.evaluation.seed_statistics import accuracy_interval, pooled
from corelib.files.csv_files import as_csv
from corelib.reports.seed_numbers import SeedNumbers
from corelib.reports.table_cells import ALL_SEEDS
from corelib.reports.table_lines import WILSON, Kind, TableLine

ACCURACY_COLUMNS = ("task", "row", "seed", "kind", "name", "set", "k", "n", "value", "low", "high", "interval")

CONFUSION_COLUMNS = ("task", "row", "seed", "style", "set", "recognised", "is_anchor", "images")


def accuracies_csv(lines: Sequence[TableLine]) -> str:
    """How many images of each style, and of each object, are recognised as it, as CSV.

    A row with several training seeds has lines for each seed and for all together.
    """
    return as_csv([ACCURACY_COLUMNS, *(entry for line in lines for entry in _accuracies(line))])


def _accuracies(line: TableLine) -> Iterator[list[object]]:
    for kind in line.judged_kinds:
        by_seed = [_recognised(numbers, kind) for numbers in line.seeds]
        for name in by_seed[0]:
            counts = [counted[name] for counted in by_seed]
            role = line.seeds[0].set_of(name) if kind == "style" else ""
            beginning = [line.row.task, line.row.row]
            for numbers, count in zip(line.seeds, counts, strict=True):
                seed = "" if numbers.seed is None else numbers.seed
                low, high = count.interval()
                yield [*beginning, seed, kind, name, role, *_numbers(count, low, high), WILSON]
            if len(counts) > 1:
                entries = _numbers(pooled(counts), *accuracy_interval(counts))
                yield [*beginning, ALL_SEEDS, kind, name, role, *entries, line.interval_name]


def recognised_as_itself(line: TableLine, kind: Kind) -> dict[str, Count]:
    """How many images of each style or object are recognised as it, over all training seeds of a row."""
    by_seed = [_recognised(numbers, kind) for numbers in line.seeds]
    return {name: pooled([counts[name] for counts in by_seed]) for name in by_seed[0]}


def _recognised(numbers: SeedNumbers, kind: Kind) -> dict[str, Count]:
    """How many images of each style or object are recognised as it, in the order of the grid."""
    grid = numbers.grid
    is_right = grid[f"predicted_{kind}"] == grid[kind]
    counted = is_right.groupby(grid[kind], sort=False).agg(["sum", "size"])
    return {str(name): Count(int(row["sum"]), int(row["size"])) for name, row in counted.iterrows()}


def _numbers(count: Count, low: float, high: float) -> list[object]:
    return [count.k, count.n, f"{count.percent:.2f}", f"{low:.2f}", f"{high:.2f}"]


def confusion_csv(lines: Sequence[TableLine]) -> str:
    """How many images of each style are recognised as which style, as CSV; only pairs that occur.

    `is_anchor` says whether a forget style is recognised as one of its anchors.
    """
    return as_csv(
        [
            CONFUSION_COLUMNS,
            *(
                [
                    line.row.task,
                    line.row.row,
                    "" if numbers.seed is None else numbers.seed,
                    style,
                    numbers.set_of(str(style)),
                    recognised,
                    ("yes" if recognised in line.row.anchors[style] else "no") if style in line.row.anchors else "",
                    count,
                ]
                for line in lines
                if "style" in line.judged_kinds
                for numbers in line.seeds
                for (style, recognised), count in _pairs(numbers)
            ),
        ]
    )


def _pairs(numbers: SeedNumbers) -> list[tuple[tuple[str, str], int]]:
    """The number of images of each pair of prompted and recognised style, the most frequent first within a style."""
    pairs = Counter(zip(numbers.grid["style"], numbers.grid["predicted_style"], strict=True))
    order = {style: number for number, style in enumerate(dict.fromkeys(numbers.grid["style"]))}
    return sorted(pairs.items(), key=lambda pair: (order[pair[0][0]], -pair[1], pair[0][1]))
