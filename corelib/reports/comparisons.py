"""The distances of the rows of a table to its retrained models, as CSV and Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corelib.files.atomic import write_text
from corelib.files.csv_files import as_csv
from corelib.files.json_files import read_json
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.distances import DISTANCES_FILE, ComparedPair, ComparedRow, ComparisonStage

COLUMNS = ("task", "row", "seed", "retrained_seed", "images", "measure", "timestep", "k", "n", "value")

AGREEMENTS = ("style", "object", "both")

HEADER = ("Model", "pairs", "images", "same style (%)", "same object (%)", "FID", "noise (x 1000)")

INTRODUCTION = (
    "Each model is compared with each retrained model (trained without the forget styles), for every pair of training "
    "seeds. The numbers are means over these pairs, with the smallest and the largest in brackets. Pairs share models, "
    "so the brackets are not confidence intervals. The row of the retrained models compares them with each other: no "
    "method can be expected to come closer. The retrained model of seed 0 has the base model's initial weights, so it "
    "may be closer to models that were trained from the base model than those of other seeds; the CSV lists every "
    "pair. Noise is the mean squared difference of the predicted noise, averaged over timesteps; the CSV lists every "
    "timestep. FID is the distance between the images of the two models."
)


@dataclass(frozen=True)
class Comparison:
    """A pair with its distances, by set of styles (`corelib.evaluation.distances`)."""

    pair: ComparedPair
    timesteps: Sequence[int]
    sets: Mapping[str, Mapping[str, Any]]


def compare(settings: ComparisonStage, context: StageContext) -> StageResult:
    """Stage: write the distances of all pairs as CSV, and their means as Markdown."""
    rows = compared_rows(settings, context.inputs)
    files = {
        f"{settings.name}.csv": as_csv([COLUMNS, *(line for row, found in rows for line in _lines(row, found))]),
        f"{settings.name}.md": _markdown(rows, settings.note),
    }
    for name, text in files.items():
        write_text(context.folder / name, text)
    return StageResult(sorted(files))


def compared_rows(
    settings: ComparisonStage, inputs: Mapping[str, Manifest]
) -> list[tuple[ComparedRow, list[Comparison]]]:
    """The rows with the distances of their pairs.

    Args:
        settings: the rows.
        inputs: the manifests of distances, by role.
    """
    return [(row, [_read(pair, inputs) for pair in row.pairs]) for row in settings.rows]


def _read(pair: ComparedPair, inputs: Mapping[str, Manifest]) -> Comparison:
    content = read_json(inputs[pair.distances].file(DISTANCES_FILE))
    return Comparison(pair, content["timesteps"], content["sets"])


def _lines(row: ComparedRow, found: Sequence[Comparison]) -> Iterator[list[object]]:
    for one in found:
        seed = "" if one.pair.seed is None else one.pair.seed
        for images, measured in one.sets.items():
            start = [row.task, row.row, seed, one.pair.retrained_seed, images]
            counts = measured["agreement"]
            for label in AGREEMENTS:
                share = 100 * counts[label] / counts["n"]
                yield [*start, f"same {label}", "", counts[label], counts["n"], f"{share:.2f}"]
            yield [*start, "FID", "", "", counts["n"], f"{measured['fid']:.6g}"]
            for timestep, value in zip(one.timesteps, measured["noise"], strict=True):
                yield [*start, "noise", timestep, "", "", "" if value is None else f"{value:.6g}"]


def mean_distances(rows: Sequence[tuple[ComparedRow, Sequence[Comparison]]]) -> dict[str, list[list[str]]]:
    """The mean distances of the rows as text, by task: a line with the columns `HEADER` for each row and set."""
    return {
        task: [
            _mean_line(row, found, images)
            for row, found in rows
            if row.task == task and found
            for images in found[0].sets
        ]
        for task in dict.fromkeys(row.task for row, _ in rows)
    }


def _markdown(rows: Sequence[tuple[ComparedRow, Sequence[Comparison]]], note: str) -> str:
    parts = ["# Distances to the retrained models", INTRODUCTION]
    for task, means in mean_distances(rows).items():
        lines = [list(HEADER), ["---", *["---:"] * (len(HEADER) - 1)], *means]
        parts.append(f"**{task}**\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join([*parts, *([note] if note else [])]) + "\n"


def _mean_line(row: ComparedRow, found: Sequence[Comparison], images: str) -> list[str]:
    measured = [one.sets[images] for one in found]
    shares = {
        label: [100 * each["agreement"][label] / each["agreement"]["n"] for each in measured] for label in AGREEMENTS
    }
    noise = [None if None in each["noise"] else 1000 * sum(each["noise"]) / len(each["noise"]) for each in measured]
    title = " ".join(row.title.split())
    return [
        title,
        str(len(found)),
        images,
        _mean(shares["style"], 1),
        _mean(shares["object"], 1),
        _mean([each["fid"] for each in measured], 2),
        "not finite" if None in noise else _mean([value for value in noise if value is not None], 2),
    ]


def _mean(values: Sequence[float], digits: int) -> str:
    """The mean, and the range if there are several values."""
    mean = f"{sum(values) / len(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} [{min(values):.{digits}f}, {max(values):.{digits}f}]"
