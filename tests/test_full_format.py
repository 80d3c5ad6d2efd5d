"""The paper's own study on files of exactly the published form: from assets to Table 1, in a checkout of its own."""

from __future__ import annotations

import csv
import json
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import REPOSITORY, Checkout
from full_format import (
    REDUCED,
    UNUSED_STYLES,
    benchmark_images,
    write_assets,
    write_image_folder,
    write_parquet,
)

from corelib.artefacts import Manifest, read_manifest
from corelib.studies import load_study

PAPER = load_study("paper", REPOSITORY / "config")
COMPVIS = "assets/UnlearnCanvas-ckpts/diffusion/compvis/compvis.ckpt"

OVERLAY = """\
world:
  images_per_cell: 2
  assets:
    compvis: {compvis}
    weights: {weights}
    classifier_architecture: {architecture}
training: {{images: [1], scale: {{length: 1.0e-5, least_steps: 2}}}}
encoding: {{resolution: 64, batch: 60}}
sampling: {{scheduler: {{steps: 2}}, resolution: 64, batch: 60}}
classification: {{batch: 60}}
fid: {{reference_images: [1, 2], batch: 60}}
gate: warn
threads: {{world: 1, unlearning: 1, sampling: 1, evaluation: 1}}
execution: {{batches_per_shard: 10}}
"""
FEWER = """\
tables:
  table1: {tasks: [Forget01], rows: [original, salun, core]}
  table2: null
  table3: null
  table4: null
figures: {figure2: null, figure3: null}
"""
"""Rows of Table 1 that pass through every rule: a mask, two methods, and the gate's grid of Forget25."""


@dataclass(frozen=True)
class Form:
    """One of the forms in which the assets may be had."""

    images: str
    compvis: str = "null"
    weights: str = "raw"


def checkout_of(folder: Path, form: Form, overlay: str = "") -> Checkout:
    """A clone beside the published files, with a study that is the paper's but for its size."""
    checkout = Checkout.at(folder / "clone")
    assets = checkout.folder / "assets"
    styles, objects = sorted([*PAPER.world.styles, *UNUSED_STYLES]), PAPER.world.objects
    write_assets(assets, REDUCED, PAPER.world.styles, objects)
    images = benchmark_images(styles, objects, 2, large=[("Van_Gogh", "Bears"), ("Monet", "Sea")])
    if form.images == "parquet":
        write_parquet(assets / "UnlearnCanvas/data", images)
    else:
        write_image_folder(assets / "UnlearnCanvas", images)
    said = OVERLAY.format(compvis=form.compvis, weights=form.weights, architecture=REDUCED.classifier)
    (checkout.folder / "config/studies/small.yaml").write_text(said + overlay)
    return checkout


def build(checkout: Checkout, *targets: str) -> None:
    """The two commands of a user with the assets."""
    done = checkout.python("-m", "corelib", "assets", "small", timeout=300)
    assert done.returncode == 0, done.stdout[-4000:]
    done = checkout.snakemake("--cores", "2", *targets, timeout=3000)
    assert done.returncode == 0, done.stdout[-6000:]


def cells_of(checkout: Checkout, table: str) -> list[dict[str, str]]:
    with (checkout.folder / f"results/small/{table}.cells.csv").open() as stream:
        return list(csv.DictReader(stream))


def manifest(checkout: Checkout, stage: str, slug: str) -> Manifest:
    """The one run of a stage whose name begins with `slug`."""
    (found,) = (checkout.folder / "runs" / stage).glob(f"{slug}-*/manifest.json")
    return read_manifest(found)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = checkout_of(tmp_path_factory.mktemp("full_format"), Form("parquet"), FEWER)
    build(checkout, "results/small/table1.csv", "results/small/gate.md")
    return checkout


def test_the_papers_study_goes_from_assets_to_its_table(small: Checkout) -> None:
    cells = cells_of(small, "table1")
    assert [(cell["row"], cell["metric"]) for cell in cells] == [
        (row, metric) for row in ("original", "salun", "core") for metric in ("UA", "IRA", "CRA", "SFID", "Total")
    ]
    counts = {"UA": 30, "IRA": 150, "CRA": 180}
    assert all(int(cell["n"]) == counts[cell["metric"]] for cell in cells if cell["n"])
    assert {cell["verdict"] for cell in cells if cell["n"]} <= {"compatible", "differs"}
    assert {cell["gate"] for cell in cells} == {"failed"}, "random weights are not the paper's model"
    assert cells[3]["value"] == "100.00", "SFID compares with the original model itself"


def test_the_gate_looks_at_the_largest_grid_and_names_the_papers_numbers(small: Checkout) -> None:
    page = (small.folder / "results/small/gate.md").read_text()
    assert "Gate: failed" in page and "Forget25" in page
    assert all(number in page for number in ("1.20", "96.54", "95.29"))


def test_the_original_model_is_sampled_once_for_all_tasks_and_the_deltas_are_of_its_cross_attention(
    small: Checkout,
) -> None:
    samples = manifest(small, "samples", "original")
    assert len(json.loads((samples.folder / "specification.json").read_text())["settings"]["grid"]) == 1140
    from safetensors import safe_open

    for method in ("core", "salun"):
        with safe_open(manifest(small, "unlearning", method).file("delta.safetensors"), framework="pt") as delta:
            assert len(list(delta.keys())) == 80
            assert all("attn2" in name for name in delta.keys())  # noqa: SIM118 (no dict)


def test_nothing_is_built_again_by_another_clone_beside_the_results(small: Checkout) -> None:
    assert small.planned("results/small/table1.csv", "results/small/gate.md") == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "form",
    [Form("folder", COMPVIS, "raw"), Form("parquet", COMPVIS, "ema"), Form("folder", weights="ema")],
    ids=["folder-compvis-raw", "parquet-compvis-ema", "folder-diffusers-ema"],
)
def test_every_form_of_the_assets_leads_to_the_table(form: Form, tmp_path: Path) -> None:
    checkout = checkout_of(tmp_path, form, FEWER)
    build(checkout, "results/small/table1.csv")
    assert len(cells_of(checkout, "table1")) == 15


@pytest.mark.slow
def test_all_of_table_1_is_built_from_the_papers_own_file(tmp_path: Path) -> None:
    checkout = checkout_of(tmp_path, Form("folder"))
    began = time.monotonic()
    build(checkout, "results/small/table1.csv")
    print(f"{time.monotonic() - began:.0f} s")
    cells = cells_of(checkout, "table1")
    assert len(cells) == 3 * 7 * 5
    sizes = {"Forget01": (30, 150, 180), "Forget06": (60, 60, 120), "Forget25": (500, 520, 1020)}
    for cell in cells:
        if cell["n"]:
            assert int(cell["n"]) == sizes[cell["task"]][("UA", "IRA", "CRA").index(cell["metric"])]
