"""The way of docs/your-own.md, with a generated folder, the shipped miniature's models and a CLIP of random weights."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from support.checkout import REPOSITORY, Checkout
from support.small_world import make_clip
from transformers import CLIPModel, CLIPProcessor

from corelib.worlds.miniature.drawing import render_image

CONCEPTS = ["Amber_Checks", "Cobalt_Stripes", "Sky_Waves"]
CLASSES = [*CONCEPTS, "Photo"]

STUDY = """\
base: own
world:
  concepts: [Amber_Checks, Cobalt_Stripes, Sky_Waves]
  classes: {concept: [Amber_Checks, Cobalt_Stripes, Sky_Waves, Photo]}
  zero_shot: {concept: "A Circles image in {concept} style."}
  assets: {images: ../own/images, pipeline: config/pretrained/pipeline, clip: ../own/clip}
prompts:
  template: "A Circles image in {concept} style."
  evaluation: ["A Circles image in {concept} style.", "A Hearts image in {concept} style."]
tasks:
  NoAmber: {forget: [Amber_Checks], evaluation: {retain: [Cobalt_Stripes, Sky_Waves], seeds: [0, 1]}}
tables: {table1: {tasks: [NoAmber], rows: [original, core]}}
encoding: {resolution: 32}
sampling: {resolution: 32, scheduler: {steps: 4}}
methods: {core: {length: {default: {steps: 4}}}}
threads: {world: 1, unlearning: 1, sampling: 1, evaluation: 1}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    for concept in CONCEPTS:
        folder = tmp_path / "own/images" / concept.replace("_", " ").lower()
        folder.mkdir(parents=True)
        for index in range(1, 12):
            image = render_image(concept, "Circles", index, seed=0, resolution=48, photo_style="Seed_Images")
            image.save(folder / f"img{index}.jpg", quality=95)
    make_clip(tmp_path / "own/clip", [f"A Circles image in {name.replace('_', ' ')} style." for name in CLASSES])
    clone = Checkout.at(tmp_path / "clone")
    (clone.folder / "config/studies/mine.yaml").write_text(STUDY)
    return clone


def test_assets_preflight_and_plan(checkout: Checkout) -> None:
    refused = checkout.snakemake("--cores", "1", "results/mine/table1.csv")
    assert refused.returncode == 1 and "make assets STUDY=mine" in refused.stdout, refused.stdout
    assert not (checkout.folder / "results").exists()
    locked = checkout.python("-m", "corelib", "assets", "mine", timeout=300)
    assert locked.returncode == 0, locked.stdout
    assert "amber checks is read as Amber_Checks" in locked.stdout
    ready = checkout.python("-m", "corelib", "preflight", "mine", timeout=300)
    assert ready.returncode == 0 and ready.stdout.endswith("mine: ready.\n"), ready.stdout
    (checkout.folder / "config/studies/more.yaml").write_text("base: mine\nworld: {images_per_cell: 11}\n")
    more = checkout.python("-m", "corelib", "assets", "more", timeout=300)
    assert more.returncode == 1 and "has no image 11 of Amber_Checks; give this study a link" in more.stdout, (
        more.stdout
    )
    assert "FAULT" in checkout.python("-m", "corelib", "preflight", "more", timeout=300).stdout
    (checkout.folder / "config/studies/typo.yaml").write_text(
        "base: mine\nworld:\n  concepts: [Amber_Checks, Cobalt_Stripes, Sky_Waves, Starz]\n"
        "  classes: {concept: [Amber_Checks, Cobalt_Stripes, Sky_Waves, Starz]}\n"
    )
    typo = checkout.python("-m", "corelib", "assets", "typo", timeout=300)
    expected = "it has no folder Starz, but amber checks, cobalt stripes, sky waves"
    assert typo.returncode == 1 and expected in typo.stdout, typo.stdout
    long = (
        "base: mine\nprompts: {evaluation: ['A Circles image in {concept} style.', '" + "far " * 80 + "{concept}']}\n"
        "tasks: {NoAmber: {forget: [Amber_Checks, Cobalt_Stripes], evaluation: {retain: [Sky_Waves]}}}\n"
        "methods: {core: {anchors: {NoAmber: {Amber_Checks: Cobalt_Stripes, Cobalt_Stripes: Sky_Waves}}}}\n"
        "sampling: {resolution: 64}\n"
    )
    (checkout.folder / "config/studies/long.yaml").write_text(long)
    faulty = checkout.python("-m", "corelib", "preflight", "long", timeout=300)
    assert faulty.returncode == 1 and "Token indices" not in faulty.stdout, faulty.stdout
    assert re.search(r"FAULT +prompts +the prompt 'far far .*' has \d+ tokens, expected at most \d+;", faulty.stdout)
    assert "ok     classes   the images are of 3 concepts of the study\n" in faulty.stdout, faulty.stdout
    assert re.search(r"note +pipeline +sampling.resolution is 64, .* trained at 32 pixels\n", faulty.stdout)
    assert re.search(r"note +anchors +the anchor of Amber_Checks is Cobalt_Stripes, which NoAmber ", faulty.stdout)
    planned = checkout.planned("results/mine/table1.csv")
    assert planned["unlearn"] == 1 and planned["classify_images"] == 2 and "measure_fid" not in planned


@pytest.mark.slow
def test_the_way_that_the_page_shows_for_a_cpu(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs/your-own.md").read_text()
    (study,) = re.findall(r"```yaml\n# config/studies/styles.yaml\n(.*?)```", page, re.DOTALL)
    clone = Checkout.at(tmp_path / "clone")
    (clone.folder / "config/studies/styles.yaml").write_text(study)
    for command in (("examples/draw_images.py", "photos"), ("-m", "corelib", "assets", "styles")):
        done = clone.python(*command, timeout=300)
        assert done.returncode == 0, done.stdout
    built = clone.snakemake("--cores", "2", "results/styles/table1.csv")
    assert built.returncode == 0, built.stdout
    table = pd.read_csv(clone.folder / "results/styles/table1.csv").set_index("Algorithm")
    assert table.loc["Original", "IRA"] > 90 and table.loc["CORE (ours)", "UA"] > 90


@pytest.mark.slow
def test_from_a_folder_of_images_to_every_product(checkout: Checkout) -> None:
    locked = checkout.python("-m", "corelib", "assets", "mine", timeout=300)
    assert locked.returncode == 0, locked.stdout
    products = checkout.python("-m", "corelib", "products", "mine").stdout.split()
    built = checkout.snakemake("--cores", "2", *products)
    assert built.returncode == 0, built.stdout
    results = checkout.folder / "results/mine"

    lines = (results / "table1.md").read_text().splitlines()
    assert lines[2] == "| Algorithm | UA (↑) | IRA (↑) | Total (↑) |"
    table = pd.read_csv(results / "table1.csv")
    assert table["CRA"].isna().all() and table["SFID"].isna().all()
    pd.testing.assert_series_equal(table["Total"], table["UA"] + table["IRA"], check_names=False)
    with Image.open(results / "charts1.tradeoff.png") as chart:
        assert len(chart.convert("L").getcolors() or []) > 10, "the chart is not empty"

    (samples,) = (checkout.folder / "runs/samples").glob("core-noamber-*")
    names = sorted(path.name for path in (samples / "images").iterdir())
    assert len(names) == 3 * 2 * 2 and names[0] == "Amber_Checks_prompt1_seed0.jpg"
    expected = recognised(samples / "images", names, checkout.folder.parent / "own/clip")
    (predictions,) = (checkout.folder / "runs/predictions").glob("core-noamber-*")
    found = pd.read_parquet(predictions / "predictions.parquet").set_index(["style", "object", "seed"])
    assert found["predicted_object"].isna().all()
    for name in names:
        match = re.fullmatch(r"(\w+)_(prompt\d)_seed(\d)\.jpg", name)
        assert match is not None
        assert found.loc[match[1], match[2], int(match[3])]["predicted_style"] == expected[name]

    again = checkout.snakemake("--cores", "1", *products)
    assert again.returncode == 0 and "Nothing to be done" in again.stdout, again.stdout
    verified = checkout.python("-m", "corelib", "verify", timeout=300)
    assert verified.returncode == 0, verified.stdout

    study = yaml.safe_load(STUDY)
    study["prompts"]["evaluation"].reverse()
    study["methods"]["core"]["learning_rate"] = 2e-5
    (checkout.folder / "config/studies/mine.yaml").write_text(yaml.safe_dump(study))
    (checkout.folder.parent / "own/images/sky waves/img3.jpg").write_bytes(b"")
    changed = checkout.snakemake("--cores", "2", "results/mine/table1.csv")
    assert changed.returncode == 0, "training images are encoded already"
    study["training"] = {"images": [1, 2, 3]}
    (checkout.folder / "config/studies/mine.yaml").write_text(yaml.safe_dump(study))
    stopped = checkout.snakemake("--cores", "2", "results/mine/table1.csv")
    assert stopped.returncode == 1 and "the image has changed since it was indexed" in stopped.stdout, stopped.stdout


def recognised(folder: Path, names: list[str], clip: Path) -> dict[str, str]:
    """The class of each image by transformers' own model and processor."""
    model, processor = CLIPModel.from_pretrained(clip).eval(), CLIPProcessor.from_pretrained(clip)
    texts = [f"A Circles image in {name.replace('_', ' ')} style." for name in CLASSES]
    found = {}
    for name in names:
        with Image.open(folder / name) as image, torch.no_grad():
            inputs = processor(text=texts, images=image.convert("RGB"), return_tensors="pt", padding=True)
            found[name] = CLASSES[int(model(**inputs).logits_per_image.argmax())]
    return found


def test_the_base_of_the_page_is_shipped() -> None:
    assert (REPOSITORY / "config/presets/own.yaml").exists()
