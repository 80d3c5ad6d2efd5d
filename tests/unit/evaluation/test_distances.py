"""Distances to a retrained model: zero between equal models, symmetric, and counted as stated."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.small_world import (
    FP32,
    IN_EVALUATION,
    IN_TRAINING,
    OBJECTS,
    STYLES,
    finish,
    make_classifier,
    make_pipeline,
    make_small_world,
    samples_settings,
)

from corelib.data.embeddings import embed_prompts
from corelib.data.latents import LatentCache
from corelib.data.slices import Pair
from corelib.errors import ArtefactError
from corelib.evaluation.classification import classify_images
from corelib.evaluation.distances import NoisePredictions, agreement, measure_distances, noise_difference
from corelib.evaluation.predictions import PREDICTIONS, write_predictions
from corelib.models.device import Device
from corelib.reports.comparisons import compare
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext, StageResult
from corelib.sampling.collection import gather_samples
from corelib.sampling.sampler import sample_shard
from corelib.settings.data import EmbeddingsStage
from corelib.settings.distances import ComparedPair, ComparedRow, ComparisonStage, Distances, DistancesStage
from corelib.settings.evaluation import FID, Classification, PredictionsStage

GRID = [(style, object_, seed) for style in STYLES[:3] for object_ in OBJECTS for seed in (0, 1)]
SETTINGS = DistancesStage(
    distances=Distances(timesteps=[100, 900], image=1),
    fid=FID(mode="clean", reference_images=[1], batch=4),
    forget=["Amber"],
    retain=["Blue", "Cream"],
    objects=OBJECTS,
    grid=GRID,
    wording=IN_TRAINING,
    retrained_wording=IN_TRAINING,
    batch=3,
)


def model_of(folder: Path, pipeline: Manifest, classifiers: dict[str, Manifest]) -> dict[str, Manifest]:
    """A pipeline with its embeddings, its images and their predictions."""
    prompts = {
        wording.prompt(style, o) for wording in (IN_TRAINING, IN_EVALUATION) for style in STYLES for o in OBJECTS
    }
    made = {"pipeline": pipeline}
    stages: dict[str, Any] = {
        "embeddings": (embed_prompts, EmbeddingsStage(prompts=sorted({"", *prompts}))),
        "samples": (None, samples_settings(GRID, batch=4)),
        "predictions": (classify_images, PredictionsStage(classification=Classification(batch=5))),
    }
    for name, (stage, settings) in stages.items():
        context = StageContext(folder / name, name, made | classifiers)
        context.folder.mkdir(parents=True)
        if stage is None:
            sample_shard(settings, context, 0, 1)
            made[name] = finish(context.folder, name, gather_samples(settings, context))
        else:
            made[name] = finish(context.folder, name, stage(settings, context))
    return made


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    """Two models of random weights, as a model and as a retrained one."""
    folder = tmp_path_factory.mktemp("models")
    world = make_small_world(folder / "world")
    classifiers = {
        f"{label}_classifier": make_classifier(folder / label, label, classes)
        for label, classes in (("style", STYLES), ("object", OBJECTS))
    }
    models = {
        "": model_of(folder / "one", world["pipeline"], classifiers),
        "retrained_": model_of(folder / "other", make_pipeline(folder / "other/pipeline", seed=7), classifiers),
    }
    both = {f"{prefix}{role}": made for prefix, model in models.items() for role, made in model.items()}
    return {**both, **classifiers, "latents": world["latents"]}


def swapped(inputs: dict[str, Manifest]) -> dict[str, Manifest]:
    roles = [role for role in inputs if f"retrained_{role}" in inputs]
    return inputs | {role: inputs[f"retrained_{role}"] for role in roles} | {f"retrained_{r}": inputs[r] for r in roles}


def measured(folder: Path, inputs: dict[str, Manifest]) -> dict[str, Any]:
    folder.mkdir()
    result = measure_distances(SETTINGS, StageContext(folder, "distances", inputs))
    content: dict[str, Any] = json.loads((folder / result.files[0]).read_text())
    return content


def test_a_model_has_no_distance_to_itself(inputs: dict[str, Manifest], tmp_path: Path) -> None:
    same = inputs | {role: inputs[role.removeprefix("retrained_")] for role in inputs if role.startswith("retrained_")}
    found = measured(tmp_path / "same", same)
    for name, images in (("forget", 4), ("retain", 8)):
        assert found["sets"][name]["agreement"] == {"style": images, "object": images, "both": images, "n": images}
        assert found["sets"][name]["fid"] == pytest.approx(0, abs=1e-6)
        assert found["sets"][name]["noise"] == [0.0, 0.0]


def test_distances_are_symmetric_and_positive(inputs: dict[str, Manifest], tmp_path: Path) -> None:
    one, other = measured(tmp_path / "one", inputs), measured(tmp_path / "other", swapped(inputs))
    for name in ("forget", "retain"):
        assert one["sets"][name]["agreement"] == other["sets"][name]["agreement"]
        assert one["sets"][name]["fid"] == pytest.approx(other["sets"][name]["fid"]) and one["sets"][name]["fid"] > 0
        assert one["sets"][name]["noise"] == pytest.approx(other["sets"][name]["noise"])
        assert min(one["sets"][name]["noise"]) > 0


def test_the_difference_of_noise_does_not_depend_on_the_batch_nor_on_the_other_images(
    inputs: dict[str, Manifest],
) -> None:
    latents, pairs = LatentCache.of_run(inputs["latents"]), [Pair(style, "Cats", 1) for style in ("Amber", "Blue")]

    def difference(chosen: list[Pair], batch: int) -> float:
        device = Device(FP32, 1)
        one, other = (NoisePredictions(inputs, prefix, IN_TRAINING, device, batch) for prefix in ("", "retrained_"))
        return noise_difference(one, other, latents, chosen, 500)

    alone = [difference([pair], 1) for pair in pairs]
    assert difference(pairs, 2) == pytest.approx(sum(alone) / 2, rel=1e-5)
    assert alone[0] != pytest.approx(alone[1])


def predicted(folder: Path, rows: list[tuple[str, str, int, str, str]]) -> Manifest:
    columns = ["style", "object", "seed", "predicted_style", "predicted_object"]
    folder.mkdir()
    write_predictions(pd.DataFrame(rows, columns=columns).assign(flagged=False), folder / PREDICTIONS)
    return finish(folder, "predictions", StageResult([PREDICTIONS]))


def test_agreement_counts_images_with_equal_predictions_whatever_their_order(tmp_path: Path) -> None:
    one = [
        ("Amber", "Cats", 0, "Blue", "Cats"),
        ("Amber", "Dogs", 0, "Blue", "Cats"),
        ("Blue", "Cats", 0, "Blue", "Cats"),
    ]
    other = [("Blue", "Cats", 0, "x", "x"), ("Amber", "Dogs", 0, "Blue", "Dogs"), ("Amber", "Cats", 0, "Blue", "Cats")]
    first, second = predicted(tmp_path / "one", one), predicted(tmp_path / "other", other)
    grid = [("Amber", "Cats", 0), ("Amber", "Dogs", 0)]
    assert agreement(first, second, grid) == {"style": 2, "object": 1, "both": 1, "n": 2}
    with pytest.raises(ArtefactError, match="no prediction for the image"):
        agreement(first, second, [("Cream", "Cats", 0)])


def test_the_table_lists_every_pair_and_shows_means_and_ranges(tmp_path: Path) -> None:
    inputs = {}
    for number, fid in enumerate((1.0, 3.0)):
        one = {"agreement": {"style": 1 + number, "object": 4, "both": 1, "n": 4}, "fid": fid, "noise": [0.001, 0.003]}
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "distances.json").write_text(json.dumps({"timesteps": [100, 900], "sets": {"forget": one}}))
        inputs[f"pair{number}"] = finish(folder, "distances", StageResult(["distances.json"]))
    pairs = [ComparedPair(seed=None, retrained_seed=seed, distances=f"pair{seed}") for seed in (0, 1)]
    row = ComparedRow(task="Forget06", row="uce", title="UCE", pairs=pairs)
    (tmp_path / "out").mkdir()
    settings = ComparisonStage(name="distances1", rows=[row], note="A note.")
    compare(settings, StageContext(tmp_path / "out", "comparisons", inputs))
    lines = list(csv.DictReader(io.StringIO((tmp_path / "out/distances1.csv").read_text())))
    assert [line["value"] for line in lines if line["measure"] == "same style"] == ["25.00", "50.00"]
    assert [line["value"] for line in lines if line["measure"] == "FID"] == ["1", "3"]
    assert [(line["timestep"], line["value"]) for line in lines if line["measure"] == "noise"][:2] == [
        ("100", "0.001"), ("900", "0.003"),
    ]  # fmt: skip
    text = (tmp_path / "out/distances1.md").read_text()
    assert (
        "| UCE | 2 | forget | 37.5 [25.0, 50.0] | 100.0 [100.0, 100.0] | 2.00 [1.00, 3.00] | 2.00 [2.00, 2.00] |"
        in text
    )
    assert text.endswith("A note.\n")
