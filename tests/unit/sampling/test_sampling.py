"""Sampling: bits do not depend on order, shards or interruptions, and images equal those of diffusers' pipeline."""

from __future__ import annotations

import errno
import itertools
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import StableDiffusionPipeline
from support.checkout import REPOSITORY
from support.small_world import (
    OBJECTS,
    STYLES,
    finish,
    make_classifier,
    make_small_world,
    samples_settings,
    unlearning_settings,
)

from corelib.errors import ArtefactError, AssetError
from corelib.evaluation.classification import classify_images
from corelib.evaluation.predictions import read_predictions
from corelib.files.hashing import sha256_of_path
from corelib.models.base_model import BaseModel
from corelib.models.delta import DELTA_FILE, load_delta
from corelib.models.guidance import apply_guidance
from corelib.models.trained_parameters import CROSS_ATTENTION
from corelib.runs.layout import MANIFEST
from corelib.runs.manifest import Manifest, read_manifest
from corelib.runs.stage_context import StageContext
from corelib.sampling import batch_writer, sampler
from corelib.sampling.collection import gather_samples
from corelib.sampling.grid import IMAGES, image_name, record_path
from corelib.sampling.sampler import Sampler, initial_noise, sample_shard
from corelib.settings.evaluation import Classification, PredictionsStage
from corelib.settings.sampling import SamplesStage
from corelib.study.loading import load_study
from corelib.unlearning.trainer import unlearn

PAPER = load_study("paper", REPOSITORY / "config")
GRID = [(style, object_, seed) for style in STYLES[:3] for object_ in OBJECTS for seed in (188, 288)][:7]


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    return make_small_world(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def delta(small_world: dict[str, Manifest], tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("delta")
    settings = unlearning_settings(PAPER.methods["core"].objective, learning_rate=1e-2)
    return finish(folder, "unlearning", unlearn(settings, StageContext(folder, "digest", small_world, 1, 1e9)))


def sample_run(
    settings: SamplesStage,
    folder: Path,
    small_world: dict[str, Manifest],
    shards: int = 1,
    order: list[int] | None = None,
) -> dict[str, str]:
    """Sample a run, and return the sha256 of every image by name."""
    folder.mkdir(exist_ok=True)
    work = StageContext(folder, "digest", small_world)
    for shard in order or range(shards):
        sample_shard(settings, work, shard, shards)
    gather_samples(settings, work)
    return {path.name: sha256_of_path(path) for path in sorted((folder / IMAGES).glob("*.jpg"))}


@pytest.fixture(scope="module")
def undisturbed(small_world: dict[str, Manifest], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return sample_run(samples_settings(GRID), tmp_path_factory.mktemp("undisturbed"), small_world)


def test_noise_of_an_image_does_not_depend_on_the_batch_it_is_drawn_in() -> None:
    together = initial_noise(GRID, (4, 8, 8))
    shuffled = random.Random(0).sample(GRID, len(GRID))
    for image, noise in zip(shuffled, initial_noise(shuffled, (4, 8, 8)), strict=True):
        assert torch.equal(noise, together[GRID.index(image)])
        assert torch.equal(noise, initial_noise([image], (4, 8, 8))[0])


def test_different_images_have_different_noise() -> None:
    for one, other in itertools.combinations(initial_noise(GRID, (4, 8, 8)), 2):
        assert not torch.equal(one, other)


def test_every_image_of_the_grid_is_sampled(undisturbed: dict[str, str]) -> None:
    assert sorted(undisturbed) == sorted(image_name(*image) for image in GRID)
    assert len(set(undisturbed.values())) == len(GRID)


@pytest.mark.parametrize(("shards", "order"), [(1, [0]), (2, [1, 0]), (3, [2, 0, 1]), (4, [3, 2, 1, 0]), (9, None)])
def test_images_do_not_depend_on_shards_or_their_order(
    shards: int, order: list[int] | None, undisturbed: dict[str, str], small_world: dict[str, Manifest], tmp_path: Path
) -> None:
    assert sample_run(samples_settings(GRID), tmp_path, small_world, shards, order) == undisturbed


def test_an_interrupted_shard_resumes_and_samples_only_missing_batches(
    undisturbed: dict[str, str], small_world: dict[str, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled_batches: list[int] = []
    sample = Sampler.sample

    def counted(self: Sampler, images: Any) -> torch.Tensor:
        sampled_batches.append(GRID.index(images[0]) // 2)
        return sample(self, images)

    def interrupted(self: Sampler, images: Any) -> torch.Tensor:
        if len(sampled_batches) == 2:
            raise KeyboardInterrupt
        return counted(self, images)

    monkeypatch.setattr(Sampler, "sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sample_run(samples_settings(GRID), tmp_path, small_world)
    monkeypatch.setattr(Sampler, "sample", counted)
    assert sample_run(samples_settings(GRID), tmp_path, small_world) == undisturbed
    assert sorted(sampled_batches) == [0, 1, 2, 3], "no batch was sampled twice"


def test_a_damaged_image_is_sampled_again(
    undisturbed: dict[str, str], small_world: dict[str, Manifest], tmp_path: Path
) -> None:
    sample_run(samples_settings(GRID), tmp_path, small_world)
    (tmp_path / IMAGES / image_name(*GRID[3])).write_bytes(b"damaged")
    with pytest.raises(
        ArtefactError, match=r"00001\.json: an image of its batch .* is missing, damaged, or from another build"
    ):
        gather_samples(samples_settings(GRID), StageContext(tmp_path, "digest", small_world))
    assert sample_run(samples_settings(GRID), tmp_path, small_world) == undisturbed


def test_images_from_different_builds_of_a_model_are_not_gathered(
    undisturbed: dict[str, str], small_world: dict[str, Manifest], tmp_path: Path
) -> None:
    """A delta may be trained again, with other bits, after some shards of its images have been sampled."""
    before, after = (
        StageContext(tmp_path, "digest", small_world, trained={"unlearning/x-0123456789ab": seal})
        for seal in ("old", "new")
    )
    sample_shard(samples_settings(GRID), before, 0, 2)
    sample_shard(samples_settings(GRID), after, 1, 2)
    with pytest.raises(ArtefactError, match=r"00000\.json: an image of its batch .* from another build of the model"):
        gather_samples(samples_settings(GRID), after)
    sample_shard(samples_settings(GRID), after, 0, 2)
    gather_samples(samples_settings(GRID), after)
    assert {path.name: sha256_of_path(path) for path in (tmp_path / IMAGES).glob("*.jpg")} == undisturbed


def test_another_batch_size_changes_images_only_by_rounding(small_world: dict[str, Manifest], tmp_path: Path) -> None:
    work = StageContext(tmp_path, "digest", small_world)
    images = [GRID[0], GRID[3]]
    pair = Sampler(samples_settings(GRID, batch=2), work).images_of(images)
    single = [Sampler(samples_settings(GRID, batch=1), work).images_of([image])[0] for image in images]
    torch.testing.assert_close(pair, torch.stack(single), atol=1e-4, rtol=0)


@pytest.mark.parametrize("unlearned", [False, True])
def test_images_equal_those_of_diffusers_own_pipeline(
    unlearned: bool, small_world: dict[str, Manifest], delta: Manifest, tmp_path: Path
) -> None:
    settings = samples_settings(GRID)
    inputs = small_world | ({"delta": delta} if unlearned else {})
    ours = Sampler(settings, StageContext(tmp_path, "digest", inputs)).images_of(GRID[:3])

    base = BaseModel(small_world["pipeline"])
    pipeline = StableDiffusionPipeline.from_pretrained(
        str(base.folder), safety_checker=None, feature_extractor=None, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = base.scheduler(
        steps_offset=1, set_alpha_to_one=False, clip_sample=False, timestep_spacing="leading"
    )
    if unlearned:
        load_delta(delta.file(DELTA_FILE), pipeline.unet, base.unet_sha256)
    theirs = pipeline(
        prompt=[settings.wording.prompt(style, object_) for style, object_, _ in GRID[:3]],
        latents=initial_noise(GRID[:3], (4, 8, 8)),
        num_inference_steps=settings.sampling.scheduler.steps,
        guidance_scale=settings.sampling.guidance_scale,
        output_type="np",
    ).images
    np.testing.assert_allclose(ours.clamp(0, 1).permute(0, 2, 3, 1).numpy(), theirs, atol=2e-5)


def test_a_delta_changes_the_images(
    undisturbed: dict[str, str], small_world: dict[str, Manifest], delta: Manifest, tmp_path: Path
) -> None:
    unlearned = sample_run(samples_settings(GRID), tmp_path, small_world | {"delta": delta})
    assert all(unlearned[name] != undisturbed[name] for name in undisturbed)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, 7.0])
def test_constant_and_non_finite_images_are_flagged_and_an_error_for_the_original_model(
    value: float,
    small_world: dict[str, Manifest],
    delta: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Sampler, "_decode", lambda _, latents: torch.full((len(latents), 3, 16, 16), value))
    settings = samples_settings(GRID[:2])
    with pytest.raises(ArtefactError, match="the original model sampled a constant or non-finite image"):
        sample_shard(settings, StageContext(tmp_path, "digest", small_world), 0, 1)
    assert not (tmp_path / record_path(0)).exists()
    sample_shard(settings, StageContext(tmp_path, "digest", small_world | {"delta": delta}), 0, 1)
    record = json.loads((tmp_path / record_path(0)).read_text())
    assert record["flagged"] == [image_name(*image) for image in GRID[:2]]


@pytest.mark.parametrize("failing", [0, 1, 3])
def test_an_error_in_writing_a_batch_ends_the_shard_without_its_record(
    failing: int, small_world: dict[str, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread writes; its error belongs to the job, also that of the last batch."""
    write = batch_writer.write_record

    def full_disk(path: Path, record: Any) -> None:
        if path == tmp_path / record_path(failing):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, record)

    monkeypatch.setattr(batch_writer, "write_record", full_disk)
    with pytest.raises(OSError, match="No space left"):
        sample_shard(samples_settings(GRID), StageContext(tmp_path, "digest", small_world), 0, 1)
    assert [(tmp_path / record_path(number)).exists() for number in range(failing + 1)] == [True] * failing + [False]


def test_images_that_are_decoded_separately_differ_by_rounding(
    small_world: dict[str, Manifest], tmp_path: Path
) -> None:
    images = []
    for count in (1, 3, 4):
        content = samples_settings(GRID, batch=4).model_dump()
        content["sampling"]["decoding"]["batch"] = count
        some = Sampler(SamplesStage.model_validate(content), StageContext(tmp_path, "digest", small_world))
        images.append(some.images_of(GRID[:4]))
    torch.testing.assert_close(images[0], images[2], atol=1e-5, rtol=0)
    torch.testing.assert_close(images[1], images[2], atol=1e-5, rtol=0)


def test_weights_that_are_rounded_once_give_the_same_images_in_bf16(
    small_world: dict[str, Manifest], delta: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run leaves them in fp32, and autocast rounds them in every pass."""
    content = samples_settings(GRID).model_dump()
    content["sampling"]["precision"] = content["sampling"]["decoding"]["precision"] = {"gpu": "bf16", "cpu": "bf16"}
    settings, work = (
        SamplesStage.model_validate(content),
        StageContext(tmp_path, "digest", small_world | {"delta": delta}),
    )
    images = []
    for _ in range(2):
        AcceleratorState._reset_state(reset_partial_state=True)  # a job is a separate process with one precision
        images.append(Sampler(settings, work).images_of(GRID[:2]))
        monkeypatch.setattr(sampler, "round_frozen_weights", lambda *_: None)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], Sampler(samples_settings(GRID), work).images_of(GRID[:2]))


def classify(samples: Manifest, folder: Path, batch: int) -> Any:
    classifiers = {
        "style_classifier": make_classifier(folder / "style", "style", STYLES),
        "object_classifier": make_classifier(folder / "object", "object", OBJECTS),
    }
    work = StageContext(folder / "predictions", "digest", {"samples": samples, **classifiers})
    work.folder.mkdir()
    outcome = classify_images(PredictionsStage(classification=Classification(batch=batch)), work)
    return read_predictions(finish(work.folder, "predictions", outcome)).set_index(["style", "object", "seed"])


def test_predictions_do_not_depend_on_the_order_of_the_grid(small_world: dict[str, Manifest], tmp_path: Path) -> None:
    predictions = []
    shuffled = random.Random(1).sample(GRID, len(GRID))
    for name, grid in (("ordered", GRID), ("shuffled", shuffled)):
        folder = tmp_path / name
        folder.mkdir()
        settings = samples_settings(grid, batch=1)
        work = StageContext(folder / "samples", "digest", small_world)
        work.folder.mkdir()
        sample_shard(settings, work, 0, 1)
        samples = finish(work.folder, "samples", gather_samples(settings, work))
        predictions.append(classify(samples, folder, batch=1).sort_index())
    assert predictions[0].equals(predictions[1])


def test_a_classifier_with_another_number_of_classes_is_refused(
    small_world: dict[str, Manifest], tmp_path: Path
) -> None:
    settings = samples_settings(GRID)
    work = StageContext(tmp_path / "samples", "digest", small_world)
    work.folder.mkdir()
    sample_shard(settings, work, 0, 1)
    samples = finish(work.folder, "samples", gather_samples(settings, work))
    wrong = make_classifier(tmp_path / "wrong", "style", STYLES)
    facts = {"classifiers": {"style": wrong.facts["classifiers"]["style"] | {"classes": [*STYLES, "One_More"]}}}
    wrong = wrong.model_copy(update={"facts": facts})
    inputs = {"samples": samples, "style_classifier": wrong}
    with pytest.raises(AssetError, match=r"classifier\.pth: not the .* \(the classifier has 4 classes, expected 5\)"):
        classify_images(
            PredictionsStage(classification=Classification(batch=4)), StageContext(tmp_path, "digest", inputs)
        )


def test_a_base_model_that_changed_after_its_adoption_is_refused(
    small_world: dict[str, Manifest], tmp_path: Path
) -> None:
    moved = tmp_path / "pipeline"
    shutil.copytree(small_world["pipeline"].folder, moved)
    weights = next((moved / "pipeline/unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtefactError, match=r"pipeline/unet: its sha256 is .* as when it was adopted"):
        BaseModel(read_manifest(moved / MANIFEST)).unet()


def test_noise_within_a_trajectory_does_not_depend_on_the_batch(
    small_world: dict[str, Manifest], tmp_path: Path
) -> None:
    content = samples_settings(GRID).model_dump()
    content["sampling"]["scheduler"]["eta"] = 1.0
    noisy = Sampler(SamplesStage.model_validate(content), StageContext(tmp_path, "digest", small_world))
    one, other = (noisy.images_of(images) for images in ([GRID[0], GRID[1]], [GRID[1], GRID[0]]))
    torch.testing.assert_close(one, other.flip(0), atol=1e-5, rtol=0)
    deterministic = Sampler(samples_settings(GRID), StageContext(tmp_path, "digest", small_world)).images_of(GRID[:2])
    assert not torch.allclose(one, deterministic, atol=1e-3)


def test_a_delta_contains_only_cross_attention(delta: Manifest) -> None:
    from safetensors.torch import load_file

    assert all(CROSS_ATTENTION in name for name in load_file(delta.file(DELTA_FILE)))


def test_guidance_extrapolates_from_the_predictions_without_a_prompt() -> None:
    both = torch.tensor([[1.0], [2.0], [5.0], [4.0]])
    assert apply_guidance(both, 3.0).tolist() == [[13.0], [8.0]]
    assert torch.equal(apply_guidance(both, 1.0), both[2:]) and torch.equal(apply_guidance(both, 0.0), both[:2])
