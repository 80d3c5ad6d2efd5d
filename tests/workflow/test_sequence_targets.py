"""A sequence of tasks with the miniature's shipped models, from the study to the report."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from support.checkout import Checkout, build_once

STUDY = """\
base: mini
tasks:
  One:
    forget: [Sky_Waves]
    evaluation:
      retain: [Cobalt_Dots, Olive_Stripes]
      objects: [Arrows, Circles, Crosses, Frames]
      seeds: [188, 288, 588]
  Two: {like: One, after: One, forget: [Amber_Checks]}
  TwoAtOnce: {like: One, forget: [Amber_Checks, Sky_Waves]}
  Forget01: null
  Forget06: null
  Forget25: null
  Forget06-unseen: null
training: {images: [1], scale: {min_steps: 200}}
sampling: {batch: 24, scheduler: {steps: 12}}
classification: {batch: 20}
methods:
  core: {length: {default: {epochs: 25}}, anchors: {default: one_to_one}}
  salun: {length: {default: {epochs: 10}}, anchors: {default: all_to_one}}
sequences:
  sequence1: {tasks: [One, Two], at_once: [One, TwoAtOnce], rows: [original, core]}
  sequence2: {tasks: [One, Two], at_once: [One, TwoAtOnce], rows: [original, salun, core, uce]}
anchoring: {base: Rose_Dots, one_to_one: {Sky_Waves: Rose_Dots, Amber_Checks: Teal_Rings}}
tables: {table1: null, table2: null, table3: null, table4: null}
figures: {figure2: null, figure3: null}
"""
TARGET = "results/steps/sequence1.csv"


def checkout_at(folder: Path) -> Checkout:
    clone = Checkout.at(folder / "clone")
    (clone.folder / "config/studies/steps.yaml").write_text(STUDY)
    return clone


def test_a_dry_run_lists_the_trainings_masks_and_edits_of_each_step(tmp_path: Path) -> None:
    planned = checkout_at(tmp_path).planned("results/steps/sequence2.csv")
    counts = {rule: planned[rule] for rule in ("unlearn", "find_salient_weights", "edit_model", "report_sequence")}
    assert counts == {"unlearn": 6, "find_salient_weights": 3, "edit_model": 3, "report_sequence": 1}
    assert planned["slice_images"] == 3 and planned["classify_images"] == 10


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    def make(folder: Path) -> None:
        done = checkout_at(folder).snakemake("--cores", "2", TARGET)
        assert done.returncode == 0, done.stdout[-6000:]

    return Checkout(build_once(tmp_path_factory, "steps", make) / "clone")


def shares(built: Checkout, row: str, way: str) -> dict[tuple[str, str], float]:
    """The share of each step and measure, in percent."""
    with (built.folder / TARGET).open() as stream:
        return {
            (line["step"], line["measure"]): float(line["value"])
            for line in csv.DictReader(stream)
            if (line["row"], line["way"], line["style"]) == (row, way, "all")
        }


@pytest.mark.slow
@pytest.mark.long
def test_the_later_training_starts_from_the_model_of_the_earlier_one(built: Checkout) -> None:
    (folder,) = (built.folder / "runs/unlearning").glob("core-two-one_to_one-*")
    specification = json.loads((folder / "specification.json").read_text())
    assert specification["builds_on"]["start"].startswith("unlearning/core-one-")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert specification["builds_on"]["start"] in manifest["trained"]


@pytest.mark.slow
@pytest.mark.long
def test_a_style_that_is_forgotten_first_is_lost_after_each_step_and_the_original_model_has_all(
    built: Checkout,
) -> None:
    original = shares(built, "original", "in sequence")
    assert max(original[key] for key in original if key[1].startswith("UA")) <= 25
    assert original["One", "IRA"] == original["Two", "IRA"] >= 75
    core = shares(built, "core", "in sequence")
    assert min(core["One", "UA new"], core["Two", "UA new"], core["Two", "UA earlier"]) >= 75, core
    assert shares(built, "core", "at once")["One", "UA new"] == core["One", "UA new"], "the same model"


@pytest.mark.slow
@pytest.mark.long
def test_nothing_is_left_to_do_and_a_change_of_the_first_task_rebuilds_the_second(built: Checkout) -> None:
    assert built.planned(TARGET) == {}
    other = STUDY.replace("base: mini", "base: steps").replace("default: {epochs: 25}", "One: {steps: 12000}")
    lines = [line for line in other.splitlines() if line.startswith("base") or "core: " in line]
    text = "\n".join([lines[0], "methods:", lines[1].replace(", anchors: {default: one_to_one}", "")])
    (built.folder / "config/studies/longer.yaml").write_text(text)
    planned = built.planned("results/longer/sequence1.csv")
    assert planned["unlearn"] == 3, "two tasks are `like` the first one and have its length, and one is after it"
    assert "slice_images" not in planned
