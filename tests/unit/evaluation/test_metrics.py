"""The metrics as counts: the paper's own numbers, intervals, the scaled distance, and counting itself."""

from __future__ import annotations

import csv
from collections import defaultdict
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from support import records
from support.checkout import REPOSITORY

from corelib.errors import ArtefactError
from corelib.evaluation.metrics import (
    ACCURACIES,
    CELLS,
    Count,
    count_cells,
    count_metrics,
    round_half_up,
    scaled_fid,
    total,
)
from corelib.evaluation.predictions import PREDICTIONS
from corelib.files.hashing import sha256_of_path
from corelib.files.json_files import read_json
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext
from corelib.settings.evaluation import CellsStage

PUBLISHED = REPOSITORY / "config" / "published.csv"
STYLES = ["Monet", "Rust", "Winter", "Joy", "Seed_Images"]
OBJECTS = ["Bears", "Cats", "Dogs"]
GRID = CellsStage(forget=["Monet", "Rust"], retain=["Joy", "Seed_Images"], objects=["Bears", "Dogs"], seeds=[188, 288])

seeds_of_draws = st.integers(min_value=0, max_value=2**32 - 1)


def published() -> list[dict[str, str]]:
    with PUBLISHED.open(newline="") as stream:
        return list(csv.DictReader(stream))


def predictions(draw: int = 0) -> pd.DataFrame:
    """Predictions drawn at random for more images than the grid has."""
    draws = np.random.default_rng(draw)
    images = [(style, object_, seed) for style in STYLES for object_ in OBJECTS for seed in (188, 288, 588)]
    return pd.DataFrame(
        [
            {
                "style": style,
                "object": object_,
                "seed": seed,
                "predicted_style": style if draws.random() < 0.5 else str(draws.choice(STYLES)),
                "predicted_object": object_ if draws.random() < 0.5 else str(draws.choice(OBJECTS)),
                "flagged": bool(draws.random() < 0.2),
            }
            for style, object_, seed in images
        ]
    )


def counted_naively(rows: pd.DataFrame, cells: CellsStage) -> dict[str, Count]:
    counted = {"UA": [0, 0], "IRA": [0, 0], "CRA": [0, 0]}
    for row in rows.to_dict("records"):
        if row["object"] not in cells.objects or row["seed"] not in cells.seeds:
            continue
        if row["style"] in cells.forget:
            counted["UA"][0] += row["predicted_style"] != row["style"]
            counted["UA"][1] += 1
        elif row["style"] in cells.retain:
            counted["IRA"][0] += row["predicted_style"] == row["style"]
            counted["IRA"][1] += 1
        else:
            continue
        counted["CRA"][0] += row["predicted_object"] == row["object"]
        counted["CRA"][1] += 1
    return {name: Count(k, n) for name, (k, n) in counted.items()}


# The paper's numbers


@pytest.mark.parametrize(
    "line",
    [line for line in published() if line["metric"] in ACCURACIES],
    ids=lambda line: f"{line['table']}-{line['task']}-{line['row']}-{line['metric']}",
)
def test_every_published_accuracy_is_its_fraction_k_of_n_rounded_to_two_decimals(line):
    assert Count(int(line["k"]), int(line["n"])).percent == Decimal(line["value"])


def test_every_published_total_is_the_sum_of_four_rounded_values():
    rows = defaultdict(dict)
    for line in published():
        rows[line["table"], line["task"], line["row"]][line["metric"]] = line
    assert len(rows) == 36
    for name, metrics in rows.items():
        assert set(metrics) == {*ACCURACIES, "SFID", "Total"}, name
        counts = {metric: Count(int(metrics[metric]["k"]), int(metrics[metric]["n"])) for metric in ACCURACIES}
        values = [*(counts[metric].percent for metric in ACCURACIES), Decimal(metrics["SFID"]["value"])]
        assert total(values) == Decimal(metrics["Total"]["value"]), name


def test_the_published_counts_belong_to_the_grids_of_the_protocol():
    expected = {
        ("table1", "Forget01"): {(30, 150, 180)},
        ("table1", "Forget06"): {(60, 60, 120)},
        ("table1", "Forget25"): {(500, 520, 1020)},
        ("table2", "Forget06-unseen"): {(60, 60, 120)},
        ("table3", "Forget06"): {(60, 60, 120), (60, 60, 240)},  # 97.08 % is not a fraction of 120
        ("table4", "Forget25"): {(500, 520, 1020)},
    }
    sizes = defaultdict(dict)
    for line in published():
        if line["metric"] in ACCURACIES:
            sizes[line["table"], line["task"], line["row"]][line["metric"]] = int(line["n"])
    grids = defaultdict(set)
    for (table, task, _), counts in sizes.items():
        grids[table, task].add(tuple(counts[metric] for metric in ACCURACIES))
    assert dict(grids) == expected


# Rounding, intervals, equation 7


@settings(deadline=None)
@given(k=st.integers(min_value=0, max_value=2000), n=st.integers(min_value=1, max_value=2000))
def test_an_accuracy_is_rounded_half_up_from_its_exact_fraction(k, n):
    k = min(k, n)
    in_hundredths, rest = divmod(20000 * k + n, 2 * n)  # add half a hundredth, then truncate
    assert 0 <= rest < 2 * n
    assert Count(k, n).percent == Decimal(in_hundredths) / 100


def test_halves_are_rounded_up_and_not_to_even():
    assert [str(Count(k, 20000).percent) for k in (1, 3, 5)] == ["0.01", "0.02", "0.03"]
    assert round_half_up(Fraction(1, 8)) == round_half_up(0.125) == Decimal("0.13")


@settings(deadline=None)
@given(n=st.integers(min_value=1, max_value=1500), share=st.floats(min_value=0, max_value=1))
def test_the_interval_is_wilsons(n, share):
    k = round(share * n)
    theirs = binomtest(k, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert Count(k, n).interval() == pytest.approx((100 * theirs.low, 100 * theirs.high), abs=1e-9)


@pytest.mark.parametrize(("k", "n"), [(0, 30), (30, 30), (1, 1), (0, 1), (520, 520)])
def test_the_interval_is_within_0_and_100_and_contains_the_share(k, n):
    low, high = Count(k, n).interval()
    assert 0 <= low <= 100 * k / n <= high <= 100


@settings(deadline=None)
@given(
    k=st.integers(min_value=0, max_value=60),
    low=st.floats(min_value=0.5, max_value=0.9),
    more=st.floats(min_value=0.01, max_value=0.09),
)
def test_more_confidence_widens_the_interval(k, low, more):
    narrow, wide = Count(k, 60).interval(low), Count(k, 60).interval(low + more)
    assert wide[0] <= narrow[0] + 1e-12
    assert narrow[1] <= wide[1] + 1e-12
    assert wide[1] - wide[0] > narrow[1] - narrow[0]


@settings(deadline=None)
@given(
    original=st.floats(min_value=0.01, max_value=1000),
    unlearned=st.floats(min_value=0.01, max_value=1000),
)
def test_sfid_follows_equation_7(original, unlearned):
    expected = min(100 * original / unlearned, 100)
    assert scaled_fid(original, unlearned) == pytest.approx(expected, rel=1e-12)


def test_sfid_of_the_original_model_and_of_anything_nearer_to_the_photos_is_exactly_100():
    assert scaled_fid(13.7, 13.7) == 100.0
    assert scaled_fid(13.7, 2.0) == 100.0
    assert scaled_fid(0.0, 0.0) == 100.0
    assert scaled_fid(10.0, 20.0) == 50.0


@settings(deadline=None)
@given(values=st.lists(st.integers(min_value=0, max_value=10000), min_size=4, max_size=4))
def test_the_total_is_an_exact_sum_of_hundredths(values):
    assert total([Decimal(value) / 100 for value in values]) == Decimal(sum(values)) / 100


# Counting


@settings(max_examples=60, deadline=None)
@given(draw=seeds_of_draws, data=st.data())
def test_counts_equal_those_of_a_loop_over_the_images(draw, data):
    styles = data.draw(st.permutations(STYLES))
    cut = data.draw(st.integers(min_value=1, max_value=len(STYLES) - 1))
    cells = CellsStage(
        forget=styles[:cut],
        retain=styles[cut : data.draw(st.integers(min_value=cut + 1, max_value=len(STYLES)))],
        objects=data.draw(st.lists(st.sampled_from(OBJECTS), min_size=1, unique=True)),
        seeds=data.draw(st.lists(st.sampled_from([188, 288, 588]), min_size=1, unique=True)),
    )
    counts = count_metrics(predictions(draw), cells)
    assert counts == counted_naively(predictions(draw), cells)
    images = len(cells.objects) * len(cells.seeds)
    assert [counts[name].n for name in ACCURACIES] == [
        len(cells.forget) * images,
        len(cells.retain) * images,
        (len(cells.forget) + len(cells.retain)) * images,
    ]


@settings(max_examples=30, deadline=None)
@given(draw=seeds_of_draws, shuffle=seeds_of_draws)
def test_counts_do_not_depend_on_the_order_of_the_rows(draw, shuffle):
    rows = predictions(draw)
    shuffled = rows.sample(frac=1, random_state=shuffle)
    assert count_metrics(shuffled, GRID) == count_metrics(rows, GRID)


def test_perfect_predictions_keep_everything_and_forget_nothing():
    rows = predictions()
    rows["predicted_style"], rows["predicted_object"] = rows["style"], rows["object"]
    assert count_metrics(rows, GRID) == {"UA": Count(0, 8), "IRA": Count(8, 8), "CRA": Count(16, 16)}


def test_unlearning_accuracy_rises_only_with_forget_images_that_are_classified_as_another_style():
    rows = predictions()
    rows["predicted_style"], rows["predicted_object"] = rows["style"], rows["object"]
    rows.loc[(rows["style"] == "Monet") & (rows["object"] == "Bears"), "predicted_style"] = "Rust"
    rows.loc[(rows["style"] == "Joy") & (rows["seed"] == 188), "predicted_style"] = "Monet"
    assert count_metrics(rows, GRID) == {"UA": Count(2, 8), "IRA": Count(6, 8), "CRA": Count(16, 16)}


@pytest.mark.parametrize(("style", "object_", "seed"), [("Monet", "Bears", 288), ("Joy", "Dogs", 188)])
def test_a_missing_image_is_an_error_and_not_a_smaller_n(style, object_, seed):
    rows = predictions()
    gone = (rows["style"] == style) & (rows["object"] == object_) & (rows["seed"] == seed)
    assert gone.sum() == 1
    with pytest.raises(ArtefactError, match=rf"lack the image \('{style}', '{object_}', {seed}\)"):
        count_metrics(rows[~gone], GRID)


# The stage


def manifest(folder: Path, files: list[str], facts: dict[str, object]) -> Manifest:
    return records.manifest(folder, {name: sha256_of_path(folder / name) for name in files}, facts, "test")


def context_with(rows: pd.DataFrame, folder: Path, diverged_at: int | None = None) -> StageContext:
    folder.mkdir()
    rows.to_parquet(folder / PREDICTIONS)
    inputs = {
        "predictions": manifest(folder, [PREDICTIONS], {"diverged_at": diverged_at}),
        "fid": manifest(folder, [], {"fid": 40.0}),
        "fid_of_original": manifest(folder, [], {"fid": 10.0}),
    }
    (folder / "cells").mkdir()
    return StageContext(folder / "cells", "0" * 64, inputs)


def test_cells_hold_counts_both_distances_flagged_images_and_divergence(tmp_path):
    rows = predictions(3)
    work = context_with(rows, tmp_path / "run", diverged_at=17)
    outcome = count_cells(GRID, work)
    cells = read_json(work.folder / CELLS)
    assert outcome.files == [CELLS, PREDICTIONS]
    assert cells == {
        **{name: {"k": count.k, "n": count.n} for name, count in counted_naively(rows, GRID).items()},
        "FID": 40.0,
        "FID_of_original": 10.0,
        "flagged": cells["flagged"],
        "diverged_at": 17,
        "forget": GRID.forget,
    }


def test_only_flagged_images_of_the_tasks_own_grid_are_counted(tmp_path):
    rows = predictions(3)
    on_grid = (
        rows["style"].isin([*GRID.forget, *GRID.retain])
        & rows["object"].isin(GRID.objects)
        & rows["seed"].isin(GRID.seeds)
    )
    rows["flagged"] = True
    outcome = count_cells(GRID, context_with(rows, tmp_path / "run"))
    assert outcome.facts["flagged"] == on_grid.sum() == 16
