"""The paper's study with assets in exactly the published form: from assets to Table 1, in a separate checkout."""

from __future__ import annotations

import csv
import io
import json
import shutil
import time
from collections import Counter
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from cleanfid.fid import frechet_distance, get_folder_features
from cleanfid.inception_torchscript import InceptionV3W
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from support.checkout import REPOSITORY, Checkout, build_once
from support.full_format import (
    REDUCED,
    UNUSED_STYLES,
    benchmark_images,
    picture,
    write_assets,
    write_image_folder,
    write_parquet,
)
from support.small_world import finish
from torchvision import transforms
from torchvision.models import inception_v3

from corelib.evaluation.classification import classify_images
from corelib.evaluation.metrics import count_metrics
from corelib.evaluation.predictions import read_predictions
from corelib.files.json_files import read_json
from corelib.runs.layout import MANIFEST, RUNS, SPECIFICATION
from corelib.runs.manifest import Manifest, read_manifest
from corelib.runs.stage_context import StageContext, StageResult
from corelib.sampling.batch_writer import to_pixels
from corelib.sampling.grid import IMAGES, image_name
from corelib.sampling.sampler import Sampler, initial_noise
from corelib.settings.evaluation import CellsStage, PredictionsStage
from corelib.settings.sampling import SamplesStage
from corelib.study.loading import load_plan, load_study

PAPER = load_study("paper", REPOSITORY / "config")
CLASSIFIERS = ("style_classifier", "object_classifier")
COMPVIS = "assets/UnlearnCanvas-ckpts/diffusion/compvis/compvis.ckpt"

OVERLAY = """\
world:
  images_per_cell: 2
  assets:
    compvis: {compvis}
    weights: {weights}
    classifier_architecture: {architecture}
training: {{images: [1], scale: {{length: 1.0e-5, min_steps: 2}}}}
encoding: {{resolution: 64, batch: 60}}
sampling: {{scheduler: {{steps: 2}}, resolution: 64, batch: 60}}
classification: {{batch: 60}}
fid: {{reference_images: [1, 2], batch: 60}}
gate: warn
threads: {{world: 1, unlearning: 1, sampling: 1, evaluation: 1}}
execution: {{batches_per_shard: 10}}
"""
FEWER = """\
tasks:
  Forget25: {evaluation: {objects: [Bears, Birds, Cats]}}
tables:
  table1: {tasks: [Forget01], rows: [original, salun, core]}
  table2: null
  table3: null
  table4: null
figures: {figure2: null, figure3: null}
probes:
  probe_wording: {kind: wording, tasks: [Forget01], rows: [core], objects: [Bears], wordings: {other: {misspelt: true}}}
  probe_partial:
    {kind: partial_diffusion, tasks: [Forget01], rows: [original, core], objects: [Bears], levels: [0.5], images: [1]}
  probe_relearning:
    kind: relearning
    tasks: [Forget01]
    rows: [core]
    objects: [Bears]
    images: [1]
    steps: [2]
    trained: all
    learning_rate: 1.0e-4
    batch: 1
  probe_inversion:
    kind: inversion
    tasks: [Forget01]
    rows: [core]
    objects: [Bears]
    images: 2
    steps: [2]
    learning_rate: 0.01
    batch: 1
    start: mean
  probe_prefix:
    kind: prefix
    tasks: [Forget01]
    rows: [core]
    objects: [Bears]
    tokens: 3
    images: 2
    steps: [2]
    learning_rate: 0.1
    batch: 1
  probe_neighbours: {kind: neighbours, tasks: [Forget01], rows: [original, core], alike: {Van_Gogh: [Monet]}}
"""
"""Rows of Table 1 that need every rule: a mask, two methods, and three objects of the gate's grid of Forget25; and a
probe of each kind."""
PROBES = [f"probe_{kind}" for kind in ("wording", "partial", "relearning", "inversion", "prefix", "neighbours")]

LARGE: dict[str, Any] = {"large": [("Van_Gogh", "Bears"), ("Monet", "Birds")]}
"""Cells with images of the real size: one in the forget set, and one in the retain set and in FID's reference."""


@dataclass(frozen=True)
class Form:
    """A form in which users may have the assets."""

    images: str
    compvis: str = "null"
    weights: str = "raw"


def checkout_of(folder: Path, form: Form, overlay: str = "") -> Checkout:
    """A clone with the published assets, and with the paper's study at a reduced size."""
    checkout = Checkout.at(folder / "clone")
    assets = checkout.folder / "assets"
    styles, objects = sorted([*PAPER.world.styles, *UNUSED_STYLES]), PAPER.world.objects
    write_assets(assets, REDUCED, PAPER.world.styles, objects)
    images = benchmark_images(styles, objects, 2, **LARGE)
    if form.images == "parquet":
        write_parquet(assets / "UnlearnCanvas/data", images)
    else:
        write_image_folder(assets / "UnlearnCanvas", images)
    study = OVERLAY.format(compvis=form.compvis, weights=form.weights, architecture=REDUCED.classifier)
    (checkout.folder / "config/studies/small.yaml").write_text(study + overlay)
    return checkout


def build(checkout: Checkout, *targets: str) -> None:
    """Run the two commands of a user who has the assets."""
    done = checkout.python("-m", "corelib", "assets", "small", timeout=300)
    assert done.returncode == 0, done.stdout[-4000:]
    done = checkout.snakemake("--cores", "2", *targets, timeout=3000)
    assert done.returncode == 0, done.stdout[-6000:]


def cells_of(checkout: Checkout, table: str) -> list[dict[str, str]]:
    with (checkout.folder / f"results/small/{table}.cells.csv").open() as stream:
        return list(csv.DictReader(stream))


def manifest(checkout: Checkout, stage: str, slug: str) -> Manifest:
    """The manifest of the only run of a stage whose name begins with `slug`, without the runs of probes."""
    found = (checkout.folder / "runs" / stage).glob(f"{slug}-*/manifest.json")
    (usual,) = [path for path in found if "-probe_" not in path.parent.name]
    return read_manifest(usual)


def specification_of(made: Manifest) -> dict[str, Any]:
    return read_json(made.folder / SPECIFICATION)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    def make(folder: Path) -> None:
        checkout = checkout_of(folder, Form("parquet"), FEWER)
        build(
            checkout,
            "results/small/table1.csv",
            "results/small/gate.md",
            *(f"results/small/{name}.csv" for name in PROBES),
        )

    return Checkout(build_once(tmp_path_factory, "full_format", make) / "clone")


@pytest.mark.long
def test_the_papers_study_is_built_from_assets_to_table(small: Checkout) -> None:
    cells = cells_of(small, "table1")
    assert [(cell["row"], cell["metric"]) for cell in cells] == [
        (row, metric) for row in ("original", "salun", "core") for metric in ("UA", "IRA", "CRA", "SFID", "Total")
    ]
    counts = {"UA": 30, "IRA": 150, "CRA": 180}
    assert all(int(cell["n"]) == counts[cell["metric"]] for cell in cells if cell["n"])
    assert {cell["verdict"] for cell in cells if cell["n"]} <= {"compatible", "differs"}
    assert {cell["gate"] for cell in cells} == {"failed"}, "random weights are not the paper's model"
    assert cells[3]["value"] == "100.00", "SFID compares with the original model itself"


@pytest.mark.parametrize("probe", PROBES)
def test_each_probe_counts_the_images_of_the_papers_world(probe: str, small: Checkout) -> None:
    with (small.folder / f"results/small/{probe}.csv").open() as stream:
        found = [line for line in csv.DictReader(stream) if line["row"] == "core" and line["style"] == "all"]
    conditions = {line["condition"]: int(line["n"]) for line in found}
    if probe == "probe_neighbours":
        assert conditions == {"forgotten": 30, "alike": 30, "shares 0 words": 120}
    else:
        assert len(conditions) == 2 and set(conditions.values()) == {3}  # three seeds of one object
    assert {line["diverged_at"] for line in found} == {""}


def test_the_gate_uses_the_largest_grid_and_reports_the_papers_numbers(small: Checkout) -> None:
    page = (small.folder / "results/small/gate.md").read_text()
    assert "Gate: failed" in page and "Forget25" in page
    assert all(number in page for number in ("1.20", "96.54", "95.29"))


def test_the_original_model_is_sampled_once_for_all_tasks_and_deltas_contain_only_cross_attention(
    small: Checkout,
) -> None:
    samples = manifest(small, "samples", "original")
    grid = json.loads((samples.folder / "specification.json").read_text())["settings"]["grid"]
    study = load_study("small", small.folder / "config")
    images = {
        (style, object_, seed)
        for task in study.tasks.values()
        for style in (*task.forget, *task.evaluation.retain)
        for object_ in study.objects_of_evaluation(task)
        for seed in task.evaluation.seeds
    }
    assert len(grid) == len(images) and set(map(tuple, grid)) == images
    for method in ("core", "salun"):
        with safe_open(manifest(small, "unlearning", method).file("delta.safetensors"), framework="pt") as delta:
            assert len(list(delta.keys())) == 80
            assert all("attn2" in name for name in delta.keys())  # noqa: SIM118 (no dict)


def test_without_the_assets_only_tables_can_be_rebuilt(small: Checkout, tmp_path: Path) -> None:
    """For example, results were copied to a laptop, and a title is changed there."""
    laptop = Checkout.at(tmp_path / "laptop")
    shutil.copy(small.folder / "config/studies/small.yaml", laptop.folder / "config/studies/small.yaml")
    shutil.copy(small.folder / "config/assets.lock.json", laptop.folder / "config/assets.lock.json")
    for name in ("runs", "results"):
        shutil.copytree(small.folder / name, laptop.folder / name, symlinks=True)
    laptop.edit("config/config.yaml", "title: SalUn\n", "title: Saliency\n")
    done = laptop.snakemake("--cores", "1", "results/small/table1.csv")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Saliency" in (laptop.folder / "results/small/table1.csv").read_text()
    laptop.edit("config/config.yaml", "jpeg_quality: 75", "jpeg_quality: 76")
    done = laptop.snakemake("--cores", "1", "results/small/table1.csv")
    assert done.returncode == 1 and "is missing" in done.stdout and "`make assets STUDY=small`" in done.stdout


def test_nothing_is_left_to_do_after_the_build(small: Checkout) -> None:
    assert small.planned("results/small/table1.csv", "results/small/gate.md") == {}


def test_preflight_finds_no_fault_and_plan_nothing_to_do(small: Checkout) -> None:
    done = small.python("-m", "corelib", "preflight", "small", timeout=300)
    assert done.returncode == 0, done.stdout
    assert "all 9 are present, intact and as locked" in done.stdout
    assert "the 51 styles are those of the images, in the order of the classifier's outputs" in done.stdout
    assert done.stdout.endswith("small: ready.\n")
    done = small.python("-m", "corelib", "plan", "results/small/table1.csv")
    assert done.stdout.startswith("Nothing to do")


# Comparison of the results with independent implementations


def export(small: Checkout, what: str, row: str, name: str) -> Path:
    place = ("results/small/table1.csv", "Forget01", row)
    done = small.python("-m", "corelib", "export", what, *place, name, timeout=300)
    assert done.returncode == 0, done.stdout
    return small.folder / name


def diffusers_images(pipeline: StableDiffusionPipeline, images: list[tuple[str, str, int]]) -> torch.Tensor:
    """Images that diffusers' own pipeline samples from our noise, (n, 3, side, side) in [0, 1]."""
    pipeline.set_progress_bar_config(disable=True)
    answers = pipeline(
        [PAPER.prompts.in_evaluation.prompt(style, object_) for style, object_, _ in images],
        latents=initial_noise(images, (4, 8, 8)),
        num_inference_steps=2,
        guidance_scale=PAPER.sampling.guidance_scale,
        eta=0.0,
        output_type="pt",
    )
    return answers.images


@pytest.fixture(scope="module")
def core_model(small: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        export(small, "model", "core", str(folder / "core"))

    return build_once(tmp_path_factory, "core_model", make) / "core"


@pytest.mark.parametrize("model", ["original", "core"])
def test_images_are_those_of_diffusers_own_pipeline(model: str, small: Checkout, core_model: Path) -> None:
    samples = manifest(small, "samples", model)
    chosen = [("Van_Gogh", "Bears", 188), ("Monet", "Birds", 288), ("Crayon", "Frogs", 588)]
    if model == "original":
        folder = small.folder / "assets/UnlearnCanvas-ckpts/diffusion/diffuser/style50"
        old = json.loads((folder / "model_index.json").read_text())
        assert old["feature_extractor"][1] == "CLIPFeatureExtractor", "a class that transformers no longer has"
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    else:
        pipeline = StableDiffusionPipeline.from_pretrained(core_model)
        assert isinstance(pipeline.scheduler, DDIMScheduler)
    theirs = diffusers_images(pipeline, chosen)
    paths = {key: samples.folder / IMAGES / image_name(*key) for key in chosen}
    for (_, path), values in zip(paths.items(), theirs, strict=True):
        ours = np.asarray(Image.open(path), dtype=int)
        stream = io.BytesIO()
        Image.fromarray(to_pixels(values)).save(stream, format="JPEG", quality=75)
        differing = np.abs(ours - np.asarray(Image.open(stream), dtype=int)) > 2
        assert differing.mean() < 0.02, "rounding to another level may change a few blocks of a JPEG"
    with chdir(small.folder):
        settings = SamplesStage.model_validate_json(json.dumps(specification_of(samples)["settings"]))
        below = specification_of(samples)["builds_on"]
        inputs = {role: read_manifest(RUNS / run / MANIFEST) for role, run in below.items()}
        ours = Sampler(settings, StageContext(small.folder, "digest", inputs)).images_of(chosen)
    torch.testing.assert_close(ours.clamp(0, 1), theirs, rtol=0, atol=2e-5)


def test_the_exported_model_differs_from_the_original_in_cross_attention(small: Checkout, core_model: Path) -> None:
    """Otherwise the test above would not test the delta."""
    folder = small.folder / "assets/UnlearnCanvas-ckpts/diffusion/diffuser/style50/unet"
    before = load_file(folder / "diffusion_pytorch_model.safetensors")
    after = load_file(core_model / "unet/diffusion_pytorch_model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "attn2" in name}


def benchmarks_own_loop(assets: Path, folder: Path) -> tuple[Counter[str], set[int]]:
    """The hits and the predicted objects, one image at a time with torchvision, as in UnlearnCanvas' accuracy.py."""
    transform = transforms.Compose(
        [transforms.Resize((224, 224)), transforms.ToTensor(), transforms.Normalize([0.5], [0.5])]
    )
    task, styles, objects = PAPER.tasks["Forget01"], PAPER.world.styles, PAPER.world.objects
    models = {}
    for label, file, classes in (("style", "style50", styles), ("object", "style50_cls", objects)):
        model = timm.create_model(REDUCED.classifier, pretrained=False)
        model.head = torch.nn.Linear(model.head.in_features, len(classes))
        checkpoint = assets / f"UnlearnCanvas-ckpts/cls_model/{file}.pth"
        model.load_state_dict(torch.load(checkpoint, weights_only=True)["model_state_dict"])
        models[label] = model.eval()
    seen: set[int] = set()
    hits: Counter[str] = Counter(UA=0, IRA=0, CRA=0)
    for style in task.forget + task.evaluation.retain:
        for object_ in task.evaluation.objects:
            for seed in task.evaluation.seeds:
                image = transform(Image.open(folder / f"{style}_{object_}_seed{seed}.jpg")).unsqueeze(0)
                with torch.no_grad():
                    is_style = int(models["style"](image).argmax()) == styles.index(style)
                    found = int(models["object"](image).argmax())
                seen.add(found)
                hits["UA"] += style in task.forget and not is_style
                hits["IRA"] += style not in task.forget and is_style
                hits["CRA"] += found == objects.index(object_)
    return hits, seen


def test_accuracies_of_the_table_are_those_of_the_benchmarks_own_loop(small: Checkout) -> None:
    folder = export(small, "images", "core", "exported/images")
    hits, _ = benchmarks_own_loop(small.folder / "assets", folder)
    ours = {cell["metric"]: int(cell["k"]) for cell in cells_of(small, "table1") if cell["row"] == "core" and cell["k"]}
    assert ours == dict(hits)


@pytest.mark.slow
def test_accuracies_of_images_of_many_kinds_are_those_of_the_benchmarks_own_loop(
    small: Checkout, tmp_path: Path
) -> None:
    """The images of a random model all look alike to a random classifier; these images do not."""
    plan, rng = load_plan("small", small.folder / "config"), np.random.default_rng(3)
    grid = plan.grid_of("Forget01")
    (tmp_path / "samples" / IMAGES).mkdir(parents=True)
    for image in grid:
        (tmp_path / "samples" / IMAGES / image_name(*image)).write_bytes(picture(rng, int(rng.integers(60, 600)), 8))
    facts = {"grid": grid, "flagged": [], "diverged_at": None}
    inputs = {"samples": finish(tmp_path / "samples", "samples", StageResult([IMAGES], facts))}
    (tmp_path / "predictions").mkdir()
    with chdir(small.folder):
        settings = PredictionsStage(classification=PAPER.classification)
        work = StageContext(
            tmp_path / "predictions", "digest", inputs | {role: manifest(small, "assets", role) for role in CLASSIFIERS}
        )
        predicted = finish(work.folder, "predictions", classify_images(settings, work))
    chosen = plan.cells("Forget01", "core", None).settings
    assert isinstance(chosen, CellsStage)
    counted = count_metrics(read_predictions(predicted), chosen)
    hits, seen = benchmarks_own_loop(small.folder / "assets", tmp_path / "samples" / IMAGES)
    assert {name: found.k for name, found in counted.items()} == dict(hits)
    assert len(seen) > 5 and hits["CRA"] > 0


def test_fid_is_clean_fids_own(small: Checkout, tmp_path: Path) -> None:
    task = PAPER.tasks["Forget01"]
    images = export(small, "images", "salun", "exported/salun")
    (tmp_path / "retain").mkdir()
    for path in images.iterdir():
        if not path.name.startswith("Van_Gogh_"):
            shutil.copy(path, tmp_path / "retain")
    styles = [*task.forget, *task.evaluation.retain]
    real = benchmark_images(sorted([*PAPER.world.styles, *UNUSED_STYLES]), PAPER.world.objects, 2, **LARGE)
    chosen = ((s, o, i, content) for s, o, i, content in real if s in styles[1:] and o in task.evaluation.objects)
    write_image_folder(tmp_path / "real", chosen)
    network = InceptionV3W(str(small.folder / "assets"), download=False, resize_inside=False)
    sets = [
        get_folder_features(
            str(tmp_path / name), model=network, num_workers=0, device="cpu", mode="clean", verbose=False
        )
        for name in ("retain", "real")
    ]
    assert [len(features) for features in sets] == [150, 100]
    assert not any(features[:, 40:].any() for features in sets), "the features that are zero in the replacement"
    statistics = [(features[:, :40].mean(axis=0), np.cov(features[:, :40], rowvar=False)) for features in sets]
    theirs = frechet_distance(*statistics[0], *statistics[1])
    with chdir(small.folder):
        ours = manifest(small, "fid", "salun-forget01").facts["fid"]
    assert ours == pytest.approx(theirs, rel=1e-6)


@pytest.mark.slow
def test_an_export_is_refused_in_one_sentence(small: Checkout) -> None:
    for arguments, expected in (
        (["model", "nobody", "exported/x"], "nobody: there is no such run in runs/unlearning, expected one of core-"),
        (["images", "", "exported/x"], "there is no such run in runs/samples, expected one of"),
        (["model", "core", "assets"], "assets: it already exists, expected the name of a new folder"),
    ):
        done = small.python("-m", "corelib", "export", *arguments)
        assert done.returncode == 1 and done.stdout.startswith("Error: ") and len(done.stdout.splitlines()) == 1
        assert expected in done.stdout
        assert not (small.folder / "exported/x").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "form",
    [Form("folder", COMPVIS, "raw"), Form("parquet", COMPVIS, "ema"), Form("folder", weights="ema")],
    ids=["folder-compvis-raw", "parquet-compvis-ema", "folder-diffusers-ema"],
)
def test_the_table_is_built_from_every_form_of_the_assets(form: Form, tmp_path: Path) -> None:
    checkout = checkout_of(tmp_path, form, FEWER)
    build(checkout, "results/small/table1.csv")
    assert len(cells_of(checkout, "table1")) == 15


RELEASED = """\
gate: null
tables:
  table1: {tasks: [Forget01], rows: [original, esd_released, salun_released, ediff_released, ca_released]}
  table2: null
  table3: null
  table4: null
figures: {figure2: null, figure3: null}
"""


@pytest.mark.slow
def test_the_workflow_builds_released_baselines_with_the_evaluators_own_fid(tmp_path: Path) -> None:
    checkout = checkout_of(tmp_path, Form("folder"), RELEASED)
    checkout.edit("config/studies/small.yaml", "gate: warn\n", "")
    checkout.edit("config/studies/small.yaml", "fid: {reference", "fid: {mode: benchmark, reference")
    torch.manual_seed(0)
    network = inception_v3(weights=None, init_weights=False)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(layer.weight)
    torch.save(network.state_dict(), checkout.folder / "assets/inception_v3_google-0cc3c7bd.pth")
    checkout.edit(
        "config/studies/small.yaml",
        "    weights: raw\n",
        "    weights: raw\n    inception_torchvision: assets/inception_v3_google-0cc3c7bd.pth\n",
    )
    build(checkout, "results/small/table1.csv")
    cells = cells_of(checkout, "table1")
    assert len(cells) == 5 * 5
    assert {cell["gate"] for cell in cells} == {"off"}
    distances = [manifest(checkout, "fid", row).facts["fid"] for row in ("original-forget01", "esd_released-forget01")]
    assert all(np.isfinite(distances)) and distances[0] != distances[1]
    made = manifest(checkout, "unlearning", "ca_released")
    with safe_open(made.file("delta.safetensors"), framework="pt") as delta:
        assert len(list(delta.keys())) == 32, "keys and values of sixteen blocks"


@pytest.mark.slow
def test_the_whole_table_1_is_built_from_the_papers_own_file(tmp_path: Path) -> None:
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
