"""A model of the user's own as a row: locked, sampled, counted and shown beside the methods."""

from __future__ import annotations

import csv

import pytest
from support.checkout import Checkout

TABLE = "results/own/table1.csv"
STUDY = """\
base: tiny
models:
  mine: {title: My model, weights: {Forget01: mine/unet}}
tables:
  table1: {tasks: [Forget01], rows: [original, core, mine]}
"""


@pytest.fixture
def own(checkout: Checkout) -> Checkout:
    """The model that CORE has trained, exported, as if it were the user's."""
    done = checkout.python("-m", "corelib", "export", "model", "core-forget01", "mine", timeout=300)
    assert done.returncode == 0, done.stdout
    (checkout.folder / "config/studies/own.yaml").write_text(STUDY)
    return checkout


def lines(checkout: Checkout) -> dict[str, list[str]]:
    with (checkout.folder / TABLE).open() as stream:
        return {
            line["Algorithm"]: [line[name] for name in ("UA", "IRA", "CRA", "SFID", "Total")]
            for line in csv.DictReader(stream)
        }


@pytest.mark.slow
def test_the_same_model_under_another_name_has_the_same_numbers(own: Checkout) -> None:
    done = own.snakemake("--cores", "2", TABLE)
    assert done.returncode == 1
    assert "mine/unet is not locked yet" in done.stdout and "`make assets STUDY=own`" in done.stdout
    done = own.python("-m", "corelib", "assets", "own", timeout=300)
    assert done.returncode == 0, done.stdout
    assert "1 model, as in " in done.stdout

    done = own.python("-m", "corelib", "preflight", "own", timeout=300)
    assert "all 1 are present and as locked" in done.stdout

    planned = own.planned(TABLE, "results/own/charts1.values.png", "results/own/report.html")
    assert planned == {
        "adopt_model": 1, "sample_shard": 2, "gather_samples": 1, "classify_images": 1, "measure_fid": 1,
        "count_cells": 1, "tabulate": 1, "draw_charts": 1, "write_report": 1,
    }  # fmt: skip
    done = own.snakemake("--cores", "2", TABLE, "results/own/charts1.values.png", "results/own/report.html")
    assert done.returncode == 0, done.stdout
    assert lines(own)["My model"] == lines(own)["CORE (ours)"]
    assert own.planned(TABLE) == {}
    assert own.python("-m", "corelib", "verify").returncode == 0

    weights = own.folder / "mine/unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    done = own.python("-m", "corelib", "assets", "own", timeout=300)
    assert done.returncode == 1 and "expected" in done.stdout and "as locked" in done.stdout


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "Forget01: mine/unet",
            "Forget02: mine/unet",
            "models.mine.weights has entries for Forget02, expected a path for Forget01",
        ),
        ("Forget01: mine/unet", "Nowhere: mine/unet", "expected a task: Forget01, Forget02"),
        ("Forget01: mine/unet", "Forget01: ~/unet", "expected the full path of a folder or file, without `~`"),
        ("  mine:", "  core:", "expected a name that no method and no baseline has"),
        ("core, mine]", "core, {name: mine, method: mine, seeds: [1]}]", "expected no training seeds for mine"),
        ("core, mine]", "core, {name: mine, method: mine, anchors: empty}]", "expected no anchors for mine"),
    ],
)
def test_a_wrong_model_is_one_sentence_before_anything_runs(old: str, new: str, sentence: str, tmp_path) -> None:
    checkout = Checkout.at(tmp_path / "clone")
    (checkout.folder / "config/studies/own.yaml").write_text(STUDY.replace(old, new))
    done = checkout.snakemake("-n", TABLE)
    assert done.returncode == 1 and done.stdout.count("Error: ") == 1
    assert sentence in done.stdout and "config/studies/own.yaml" in done.stdout
