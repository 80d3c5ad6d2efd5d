"""Probes of the miniature with its shipped models: each can find a style that was never forgotten, and can fail."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from support.checkout import Checkout, build_once

STUDY = """\
base: mini
tasks:
  Forget01: {evaluation: {objects: [Arrows, Circles, Crosses, Frames], seeds: [188, 288, 588, 688, 788]}}
  Forget06: null
  Forget25: null
  Forget06-unseen: null
training: {images: [1], scale: {min_steps: 200}}
sampling: {batch: 20, scheduler: {steps: 12}}
classification: {batch: 20}
tables:
  table1: {tasks: [Forget01], rows: [original, core]}
  table2: null
  table3: null
  table4: null
figures: {figure2: null, figure3: null}
probes:
  probe_wording:
    kind: wording
    tasks: [Forget01]
    rows: [original, core]
    wordings:
      reversed: {names: {Sky_Waves: Waves Sky}}
      misspelt: {misspelt: true}
      negation: {template: "A {object} image not {style} style."}
      nameless: {template: "A {object} image."}
  probe_partial: {kind: partial_diffusion, tasks: [Forget01], rows: [original, core], levels: [0.1, 1.0], images: [1]}
  probe_relearning:
    kind: relearning
    tasks: [Forget01]
    rows: [original, core]
    images: [5]
    steps: [5, 50]
    trained: all
    learning_rate: 5.0e-4
    batch: 4
  probe_inversion:
    kind: inversion
    tasks: [Forget01]
    rows: [original, core]
    images: 5
    steps: [1, 100]
    learning_rate: 3.0e-2
    batch: 4
    start: mean
  probe_prefix:
    kind: prefix
    tasks: [Forget01]
    rows: [original, core]
    tokens: 2
    images: 5
    steps: [50]
    learning_rate: 0.5
    batch: 4
  probe_neighbours: {kind: neighbours, tasks: [Forget01], rows: [original, core]}
"""
PROBES = [f"probe_{kind}" for kind in ("wording", "partial", "relearning", "inversion", "prefix", "neighbours")]

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    def make(folder: Path) -> None:
        clone = Checkout.at(folder / "clone")
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
"""Shares above or below which a style counts as found or lost. A condition has 20 images."""

ORIGINAL = {
    "probe_wording": ["usual"],
    "probe_partial": ["usual", "from 10 % of the steps", "from 100 % of the steps"],
    "probe_relearning": ["usual", "5 images, 5 steps"],
    "probe_inversion": ["usual"],
    "probe_neighbours": ["forgotten"],
}
"""Conditions under which the original model, which has forgotten nothing, draws the style."""

RECOVERED = {
    "probe_partial": ["from 10 % of the steps"],
    "probe_relearning": ["5 images, 50 steps"],
}
"""Conditions that bring the style back in a part of the images of the unlearned model."""

FAILED = {
    "probe_wording": ["usual", "nameless"],
    "probe_partial": ["usual", "from 100 % of the steps"],
    "probe_relearning": ["usual"],
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
def test_a_probe_with_a_larger_budget_brings_the_style_back(probe: str, probed: Checkout) -> None:
    found = shares(probed, probe, "core")
    assert {name: found[name] > LOST for name in RECOVERED[probe]} == dict.fromkeys(RECOVERED[probe], True), found


@pytest.mark.parametrize("probe", FAILED)
def test_each_probe_can_fail(probe: str, probed: Checkout) -> None:
    found = shares(probed, probe, "core")
    assert {name: found[name] <= LOST for name in FAILED[probe]} == dict.fromkeys(FAILED[probe], True), found


def test_nothing_is_left_to_do_after_the_probes(probed: Checkout) -> None:
    assert probed.planned(*(f"results/probed/{name}.csv" for name in PROBES)) == {}
