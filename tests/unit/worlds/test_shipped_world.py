"""The shipped world: complete, small, matched to its study, and trained well enough to know its styles and objects."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkout import REPOSITORY
from support.small_world import finish

from corelib.data.embeddings import embed_prompts
from corelib.errors import AssetError, ConfigurationError
from corelib.evaluation.classification import classify_images
from corelib.evaluation.metrics import count_metrics
from corelib.evaluation.predictions import read_predictions
from corelib.files.hashing import sha256_of_path
from corelib.models.classifier import ImageClassifier
from corelib.models.device import Device
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext
from corelib.sampling.collection import gather_samples
from corelib.sampling.sampler import sample_shard
from corelib.settings.evaluation import CellsStage
from corelib.settings.precision import Precision
from corelib.settings.pretrained import PretrainedStage
from corelib.study.loading import load_plan, load_study
from corelib.study.plan import Plan
from corelib.study.published import load_published
from corelib.study.shipped_world import _difference, leaves_of_world, load_shipped
from corelib.worlds.miniature.drawing import render_image
from corelib.worlds.miniature.shipped_models import SHIPPED_FOLDER, adopt_pretrained

CONFIGURATION = REPOSITORY / "config"
MINI = load_study("mini", CONFIGURATION)
RECORD = load_shipped(CONFIGURATION)
PLAN = Plan("mini", MINI, load_published(CONFIGURATION), RECORD)
SETTINGS = PretrainedStage(files=RECORD["files"], facts=RECORD["facts"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The shipped world as a job adopts it."""
    work = StageContext(tmp_path_factory.mktemp("pretrained"), "digest", {})
    return finish(work.folder, "pretrained", adopt_pretrained(SETTINGS, work))


def test_the_shipped_files_are_those_of_the_record_and_small() -> None:
    assert {name: sha256_of_path(SHIPPED_FOLDER / name) for name in RECORD["files"]} == RECORD["files"]
    assert {path.name for path in SHIPPED_FOLDER.iterdir()} == {*RECORD["files"], "world.json"}
    assert sum(path.stat().st_size for path in SHIPPED_FOLDER.rglob("*") if path.is_file()) <= 20e6


def test_the_record_has_the_provenance_of_every_part() -> None:
    stages = sorted(name.split("/")[0] for name in RECORD["provenance"])
    assert stages == ["autoencoder", "classifier", "classifier", "images", "pipeline"]
    for record in RECORD["provenance"].values():
        assert record["commit"] and not record["commit"].endswith("+")
        assert record["packages"].keys() == record["specification"]["packages"].keys()
        assert "host" not in record


def test_the_recorded_settings_are_those_of_the_study() -> None:
    """The shipped world and a world trained in the workflow differ only in their origin."""
    study = load_study("mini-from-scratch", CONFIGURATION)
    plan = Plan("mini-from-scratch", study, [])
    runs = [plan.world.pipeline(), plan.world.classifier("style"), plan.world.classifier("object")]
    runs += plan.world.pipeline().inputs.values()
    planned = {(run.stage, run.slug): run.settings.model_dump(mode="json") for run in runs}
    recorded = [record["specification"] for record in RECORD["provenance"].values()]
    assert {(record["stage"], record["slug"]): record["settings"] for record in recorded} == planned


def test_the_pipeline_stage_and_the_classifiers_are_the_shipped_ones() -> None:
    assert PLAN.world.pipeline() is PLAN.world.classifier("style") is PLAN.world.classifier("object")
    assert PLAN.world.pipeline().stage == "pretrained"


def overlay(leaf: str, value: Any) -> dict[str, Any]:
    """A study on the miniature with one leaf changed."""
    *sections, name = leaf.split(".")
    content: dict[str, Any] = {name: value}
    for section in reversed(sections):
        content = {section: content}
    return {"base": "mini", **content}


@pytest.mark.parametrize(
    ("leaf", "value"),
    [
        ("world.seed", 1),
        ("world.images_per_cell", 10),
        ("world.jpeg_quality", 90),
        ("world.autoencoder.channels", [16, 16, 32]),
        ("world.autoencoder.training.steps", 10),
        ("world.text_encoder.layers", 1),
        ("world.denoiser.ema_decay", 0.9),
        ("world.denoiser.training.learning_rate", 1e-3),
        ("world.classifier.held_out_per_cell", 2),
        ("prompts.template", "One {object} image in {style} style."),
        ("prompts.photo_in_evaluation", "Seed Images"),
    ],
)
def test_a_leaf_that_the_shipped_world_depends_on_is_named(leaf: str, value: Any, tmp_path: Path) -> None:
    shutil.copytree(CONFIGURATION, tmp_path / "config", ignore=shutil.ignore_patterns("pipeline", "*.pth"))
    study = tmp_path / "config" / "studies" / "other.yaml"
    content = overlay(leaf, value)
    study.write_text(json.dumps(content))
    with pytest.raises(ConfigurationError) as raised:
        load_study("other", tmp_path / "config")
    sentence = str(raised.value)
    assert sentence.startswith(f"{study}: {leaf} is {value!r}, expected ")
    assert "shipped world" in sentence and "world.pretrained: false" in sentence
    content.setdefault("world", {})["pretrained"] = False
    study.write_text(json.dumps(content))
    assert not load_study("other", tmp_path / "config").takes_shipped_world


def test_the_differing_entry_of_a_long_list_is_named(tmp_path: Path) -> None:
    shutil.copytree(CONFIGURATION, tmp_path / "config", ignore=shutil.ignore_patterns("pipeline", "*.pth"))
    objects = [*MINI.world.objects[:-2], *reversed(MINI.world.objects[-2:])]
    (tmp_path / "config" / "studies" / "other.yaml").write_text(json.dumps(overlay("world.objects", objects)))
    with pytest.raises(ConfigurationError, match=r"world\.objects has 'Triangles' as entry 19, expected 'Stars', with"):
        load_study("other", tmp_path / "config")
    lacking = [style for style in MINI.world.styles if style != "Lilac_Rings"]
    trained = leaves_of_world(MINI)["world.styles"]
    assert _difference("world.styles", lacking, trained) == "world.styles has 50 entries, expected the 51"


def remove_key(record: dict[str, Any], *keys: str) -> None:
    """Remove the value at a path of keys; `*` stands for the first key of a section."""
    *sections, last = keys
    for section in sections:
        record = record[section if section != "*" else min(record)]
    del record[last if last != "*" else min(record)]


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "no drawing": (lambda record: remove_key(record, "drawing"), "drawing is missing"),
    "a number for the drawing": (lambda record: record.update(drawing=7), "drawing is 7"),
    "a list of runs": (lambda record: record.update(provenance=[]), "provenance is []"),
    "no classifier": (lambda record: remove_key(record, "facts", "classifiers"), "facts.classifiers is missing"),
    "one classifier": (
        lambda record: remove_key(record, "facts", "classifiers", "style"),
        "classifiers.style is missing",
    ),
    "no classes": (lambda record: remove_key(record, "facts", "classifiers", "style", "classes"), "classes is missing"),
    "no pipeline": (lambda record: remove_key(record, "facts", "pipeline"), "facts.pipeline is missing"),
    "a number for a hash": (lambda record: record["files"].update(pipeline=7), "files.pipeline is 7"),
    "no hash": (lambda record: record["files"].update(pipeline="abc"), "files.pipeline is 'abc'"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_record_of_another_shape_is_reported_in_one_sentence(damage: str, tmp_path: Path) -> None:
    shutil.copytree(CONFIGURATION, tmp_path / "config", ignore=shutil.ignore_patterns("pipeline", "*.pth"))
    record = json.loads((SHIPPED_FOLDER / "world.json").read_text())
    act, message = DAMAGES[damage]
    act(record)
    (tmp_path / "config/pretrained/world.json").write_text(json.dumps(record))
    with pytest.raises(ConfigurationError) as raised:
        load_plan("mini", tmp_path / "config").products()
    sentence = str(raised.value)
    assert sentence.startswith(f"{tmp_path}/config/pretrained/world.json: ") and message in sentence
    assert "world.pretrained: false" in sentence and "\n" not in sentence


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"files": {', '{"files": {}, "facts": {}, "leaves": []}'])
def test_a_damaged_record_is_reported_in_one_sentence(content: str, tmp_path: Path) -> None:
    shutil.copytree(CONFIGURATION, tmp_path / "config", ignore=shutil.ignore_patterns("pipeline", "*.pth"))
    (tmp_path / "config" / "pretrained" / "world.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"world\.json: no.*; restore the file that the repository ships"):
        load_study("mini", tmp_path / "config")


def test_a_leaf_that_the_record_lacks_is_named(tmp_path: Path) -> None:
    shutil.copytree(CONFIGURATION, tmp_path / "config", ignore=shutil.ignore_patterns("pipeline", "*.pth"))
    record = json.loads((SHIPPED_FOLDER / "world.json").read_text())
    del record["leaves"]["world.seed"]
    (tmp_path / "config" / "pretrained" / "world.json").write_text(json.dumps(record))
    with pytest.raises(ConfigurationError, match=r"world\.seed is 0, expected null, with which the shipped world"):
        load_study("mini", tmp_path / "config")


def test_the_shipped_world_is_rejected_after_a_change_of_the_drawing_code() -> None:
    record = json.loads((SHIPPED_FOLDER / "world.json").read_text()) | {"drawing": "another"}
    with pytest.raises(ConfigurationError, match=r"corelib\.worlds\.miniature\.drawing: its code has changed since"):
        Plan("mini", MINI, [], record).world.pipeline()


def test_leaves_that_it_does_not_depend_on_may_change(tmp_path: Path) -> None:
    shutil.copytree(CONFIGURATION, tmp_path / "config", ignore=shutil.ignore_patterns("pipeline", "*.pth"))
    overlay = "base: mini\nsampling: {guidance_scale: 4.0}\ntraining: {seeds: [1]}\nthreads: {world: 2}\n"
    (tmp_path / "config" / "studies" / "other.yaml").write_text(overlay)
    study = load_study("other", tmp_path / "config")
    plan = Plan("other", study, load_published(CONFIGURATION), RECORD)
    assert plan.world.pipeline().name == PLAN.world.pipeline().name


def test_without_the_shipped_files_only_studies_that_need_them_fail(tmp_path: Path) -> None:
    shutil.copytree(CONFIGURATION, tmp_path / "config", ignore=shutil.ignore_patterns("pretrained"))
    load_study("paper", tmp_path / "config")
    load_study("mini-from-scratch", tmp_path / "config")
    with pytest.raises(ConfigurationError, match=r"pretrained/world\.json: it is missing"):
        load_study("mini", tmp_path / "config")


def test_a_modified_shipped_file_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(SHIPPED_FOLDER, tmp_path / "shipped")
    monkeypatch.setattr("corelib.worlds.miniature.shipped_models.SHIPPED_FOLDER", tmp_path / "shipped")
    with (tmp_path / "shipped" / "style.pth").open("ab") as file:
        file.write(b"x")
    with pytest.raises(AssetError, match=r"style\.pth: its sha256 is .*restore it from the repository"):
        adopt_pretrained(SETTINGS, StageContext(tmp_path / "run", "digest", {}))
    (tmp_path / "shipped" / "style.pth").unlink()
    with pytest.raises(AssetError, match=r"style\.pth: the file is missing"):
        adopt_pretrained(SETTINGS, StageContext(tmp_path / "run", "digest", {}))


@pytest.mark.parametrize("label", ["style", "object"])
def test_a_classifier_recognises_held_out_renderings(label: str, world: Manifest) -> None:
    """The classifier that the evaluation loads recognises at least 99 % of the last four images of each cell."""
    settings = MINI.world
    assert settings.kind == "miniature"
    classifier = ImageClassifier.of_run(world, label, Device(Precision(gpu="fp32", cpu="fp32"), threads=1))
    held_out = range(settings.images_per_cell - settings.classifier.held_out_per_cell + 1, settings.images_per_cell + 1)
    right = total = 0
    for style in settings.styles:
        for object_ in settings.objects:
            images = [
                render_image(style, object_, index, settings.seed, settings.resolution, MINI.prompts.photo_style)
                for index in held_out
            ]
            seen = classifier.probabilities(images).argmax(dim=1).tolist()
            right += sum(classifier.classes[index] == (style if label == "style" else object_) for index in seen)
            total += len(images)
    assert total == 51 * 20 * 4
    assert right / total >= 0.99


def accuracies_on(cells: list[tuple[str, str]], world: Manifest, folder: Path) -> dict[str, Any]:
    """UA, IRA and CRA of the original model on some cells of Forget25's grid, through the stages that tables use."""
    embeddings = StageContext(folder / "embeddings", "digest", {"pipeline": world})
    embeddings.folder.mkdir()
    inputs = {
        "pipeline": world,
        "embeddings": finish(
            embeddings.folder,
            "embeddings",
            embed_prompts(PLAN.embeddings("evaluation").settings, embeddings),  # type: ignore[arg-type]
        ),
    }
    settings = PLAN.samples("Forget25", "original", None).settings
    settings = settings.model_copy(update={"grid": [(style, object_, 188) for style, object_ in cells]})
    samples = StageContext(folder / "samples", "digest", inputs)
    sample_shard(settings, samples, 0, 1)  # type: ignore[arg-type]
    gathered = finish(samples.folder, "samples", gather_samples(settings, samples))  # type: ignore[arg-type]
    inputs_of_predictions = {"style_classifier": world, "object_classifier": world, "samples": gathered}
    predictions = StageContext(folder / "predictions", "digest", inputs_of_predictions)
    predictions.folder.mkdir()
    outcome = classify_images(PLAN.predictions("Forget25", "original", None).settings, predictions)  # type: ignore[arg-type]
    forget = MINI.tasks["Forget25"].forget
    styles, objects = ({cell[place] for cell in cells} for place in (0, 1))
    cells_settings = CellsStage(
        forget=[style for style in MINI.world.styles if style in styles and style in forget],
        retain=[style for style in MINI.world.styles if style in styles and style not in forget],
        objects=[object_ for object_ in MINI.world.objects if object_ in objects],
        seeds=[188],
    )
    counts = count_metrics(read_predictions(finish(predictions.folder, "predictions", outcome)), cells_settings)
    return {name: float(count.percent) for name, count in counts.items()}


@pytest.mark.slow
def test_the_original_model_knows_a_fifth_of_its_world(world: Manifest, tmp_path: Path) -> None:
    """Every fifth object in every style. The slow test covers the whole grid."""
    cells = [(style, object_) for style in MINI.world.styles for object_ in MINI.world.objects[::5]]
    accuracies = accuracies_on(cells, world, tmp_path)
    assert accuracies["UA"] <= 3 and accuracies["IRA"] >= 95 and accuracies["CRA"] >= 95, accuracies


@pytest.mark.slow
def test_the_original_model_knows_its_world(world: Manifest, tmp_path: Path) -> None:
    cells = [(style, object_) for style in MINI.world.styles for object_ in MINI.world.objects]
    accuracies = accuracies_on(cells, world, tmp_path)
    assert accuracies["UA"] <= 3 and accuracies["IRA"] >= 95 and accuracies["CRA"] >= 95, accuracies


def test_shipped_weights_are_plain_tensors() -> None:
    for label in ("style", "object"):
        content = torch.load(SHIPPED_FOLDER / f"{label}.pth", weights_only=True)
        assert set(content) == {"model_state_dict"}
    assert not list(SHIPPED_FOLDER.rglob("*.bin"))
    assert json.loads((SHIPPED_FOLDER / "world.json").read_text())["files"] == RECORD["files"]
