"""Probes of the tiny study: each can find a style that was never forgotten, and each can fail."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from support.checkout import Checkout, build_once

STUDY = """\
base: tiny
tasks: {Forget01: {evaluation: {seeds: [1, 2, 3, 4, 5, 6, 7, 8]}}}
probes:
  probe_wording:
    kind: wording
    tasks: [Forget01]
    rows: [original, core]
    wordings: {again: {names: {Cobalt_Stripes: Cobalt Stripes}}, nameless: {template: "A {object} image."}}
  probe_partial:
    {kind: partial_diffusion, tasks: [Forget01], rows: [original, core], levels: [0.1, 1.0], images: [1, 2]}
  probe_relearning:
    kind: relearning
    tasks: [Forget01]
    rows: [original, core]
    images: [1, 10]
    steps: [1, 100]
    trained: all
    learning_rate: 1.0e-3
    batch: 4
  probe_inversion:
    kind: inversion
    tasks: [Forget01]
    rows: [original, core]
    images: 10
    steps: [1, 100]
    learning_rate: 3.0e-2
    batch: 4
    start: mean
  probe_prefix:
    kind: prefix
    tasks: [Forget01]
    rows: [original, core]
    tokens: 2
    images: 10
    steps: [50]
    learning_rate: 0.5
    batch: 4
  probe_neighbours: {kind: neighbours, tasks: [Forget01], rows: [original, core]}
"""
PROBES = [f"probe_{kind}" for kind in ("wording", "partial", "relearning", "inversion", "prefix", "neighbours")]

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def probed(built: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    def make(folder: Path) -> None:
        clone = Checkout.at(folder / "clone")
        for name in ("runs", "results"):
            shutil.copytree(built.folder / name, clone.folder / name)
        (clone.folder / "config/studies/probed.yaml").write_text(STUDY)
        done = clone.snakemake("--cores", "2", *(f"results/probed/{name}.csv" for name in PROBES))
        assert done.returncode == 0, done.stdout[-6000:]

    return Checkout(build_once(tmp_path_factory, "probed", make) / "clone")


def shares(probed: Checkout, probe: str, row: str) -> dict[str, float]:
    """The share of images of each condition in which the style is recognised, in percent."""
    with (probed.folder / f"results/probed/{probe}.csv").open() as stream:
        return {
            line["condition"]: float(line["value"])
            for line in csv.DictReader(stream)
            if line["row"] == row and line["style"] == "all"
        }


FOUND, LOST = 75.0, 25.0
"""Shares above or below which a style counts as found or lost. In a condition there are 24 images."""

ORIGINAL = {
    "probe_wording": ["usual", "again"],
    "probe_partial": ["usual", "from 10 % of the steps", "from 100 % of the steps"],
    "probe_relearning": ["usual", "1 image, 1 step", "10 images, 1 step"],
    "probe_inversion": ["usual", "100 steps"],
    "probe_prefix": ["usual", "50 steps"],
    "probe_neighbours": ["forgotten", "shares 1 word", "shares 0 words"],
}
"""Conditions under which the original model, which has forgotten nothing, draws the style."""

RECOVERED = {
    "probe_partial": ["from 10 % of the steps"],
    "probe_relearning": ["10 images, 100 steps"],
    "probe_inversion": ["100 steps"],
}
"""Conditions that bring the style back in the unlearned model."""

FAILED = {
    "probe_wording": ["usual", "again", "nameless"],
    "probe_partial": ["usual", "from 100 % of the steps"],
    "probe_relearning": ["usual", "1 image, 1 step", "10 images, 1 step"],
    "probe_inversion": ["usual", "1 step"],
    "probe_prefix": ["usual"],
    "probe_neighbours": ["forgotten"],
}
"""Conditions that do not bring it back."""


@pytest.mark.parametrize("probe", ORIGINAL)
def test_each_probe_finds_the_style_in_the_original_model_at_once(probe: str, probed: Checkout) -> None:
    found = shares(probed, probe, "original")
    assert {name: found[name] >= FOUND for name in ORIGINAL[probe]} == dict.fromkeys(ORIGINAL[probe], True), found


@pytest.mark.parametrize("probe", RECOVERED)
def test_a_probe_with_a_large_budget_brings_the_style_back(probe: str, probed: Checkout) -> None:
    found = shares(probed, probe, "core")
    assert {name: found[name] >= FOUND for name in RECOVERED[probe]} == dict.fromkeys(RECOVERED[probe], True), found


@pytest.mark.parametrize("probe", FAILED)
def test_each_probe_can_fail(probe: str, probed: Checkout) -> None:
    found = shares(probed, probe, "core")
    assert {name: found[name] <= LOST for name in FAILED[probe]} == dict.fromkeys(FAILED[probe], True), found


def test_the_same_prompts_in_other_words_give_the_same_images(probed: Checkout) -> None:
    for row in ("original", "core"):
        found = shares(probed, "probe_wording", row)
        assert found["again"] == found["usual"], row


def test_nothing_is_left_to_do_after_the_probes(probed: Checkout) -> None:
    assert probed.planned(*(f"results/probed/{name}.csv" for name in PROBES)) == {}
