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
