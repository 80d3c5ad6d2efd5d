"""Features of the baselines' released code: sampled x_t, generated anchors, training of keys and values only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from support.checkout import REPOSITORY
from support.small_world import (
    FP32,
    OBJECTS,
    finish,
    make_small_world,
    samples_settings,
    unlearning_settings,
    with_another_scheduler,
)

from corelib.data.latents import LatentCache, preprocess
from corelib.data.slices import Pair
from corelib.errors import ArtefactError
from corelib.files.image_files import read_image
from corelib.models.base_model import BaseModel
from corelib.models.delta import DELTA_FILE, load_delta
from corelib.models.device import Device
from corelib.models.student_teacher import StudentAndTeacher
from corelib.models.trained_parameters import trained_parameters
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext
from corelib.sampling.collection import gather_samples
from corelib.sampling.grid import IMAGES, image_name
from corelib.sampling.sampler import sample_shard
from corelib.settings.data import Encoding, LatentsStage
from corelib.settings.objective import Objective, SampledImages, UnlearnTerm
from corelib.study.loading import load_study
from corelib.unlearning.batches import Batches
from corelib.unlearning.generated_images import cache_generated_latents
from corelib.unlearning.partial_sampling import PartialSampler, draw_noise_level
from corelib.unlearning.trainer import unlearn
from corelib.unlearning.training_data import TrainingData

PAPER = load_study("paper", REPOSITORY / "config")
RELEASED = ["esd_released", "salun_released", "ediff_released", "ca_released"]
SWITCHES: dict[str, Any] = {
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
    "timestep_spacing": "leading",
}
ENCODING = Encoding(resolution=16, interpolation="bicubic", batch=4)


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    folder = tmp_path_factory.mktemp("material")
    inputs = make_small_world(folder)
    anchors = ["Blue", "Cream"]
    work = StageContext(folder / "samples", "digest", {role: inputs[role] for role in ("pipeline", "embeddings")})
    work.folder.mkdir()
    grid = [(style, object_, index) for style in anchors for object_ in OBJECTS for index in (1, 2, 3)]
    sample_shard(samples_settings(grid), work, 0, 1)
    samples = finish(work.folder, "samples", gather_samples(samples_settings(grid), work))
    work = StageContext(folder / "generated", "digest", {"samples": samples, "pipeline": inputs["pipeline"]})
    work.folder.mkdir()
    settings = LatentsStage(styles=anchors, objects=OBJECTS, images=[1, 2, 3], encoding=ENCODING)
    return inputs | {
        "generated": finish(work.folder, "generated", cache_generated_latents(settings, work)),
        "samples": samples,
    }


def training_data(inputs: Mapping[str, Manifest], settings: Any) -> TrainingData:
    alphas = BaseModel(inputs["pipeline"]).scheduler().alphas_cumprod
    return TrainingData.of_runs(inputs, settings.wording, alphas)


# x_t that the model samples itself


class Linear:
    """A noise predictor with a known prediction, which records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, noisy: torch.Tensor, timesteps: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
        self.calls.append((len(noisy), int(timesteps[0])))
        return 0.1 * noisy + prompts.mean(dim=(1, 2)).view(-1, 1, 1, 1)


def by_hand(
    images: SampledImages, level: int, alphas: torch.Tensor, noise: torch.Tensor, own: torch.Tensor
) -> torch.Tensor:
    """DDIM by its equation (12) with sigma 0, down to the noise level of the step with the number `level`."""
    ratio = 1000 // images.steps
    noisy = noise
    for step in range(images.steps - 1, level, -1):
        alpha, next_alpha = alphas[step * ratio + 1], alphas[(step - 1) * ratio + 1]
        unconditional = 0.1 * noisy
        predicted = unconditional + images.guidance_scale * (own.mean(dim=(1, 2)).view(-1, 1, 1, 1))
        clean = (noisy - (1 - alpha).sqrt() * predicted) / alpha.sqrt()
        noisy = next_alpha.sqrt() * clean + (1 - next_alpha).sqrt() * predicted
    return noisy


@pytest.mark.parametrize("step", range(6))
def test_x_t_is_sampled_by_ddim_to_the_noise_level_that_was_drawn(step: int, small_world: dict[str, Manifest]) -> None:
    images = SampledImages(kind="sampled", steps=10, guidance_scale=3.0, **SWITCHES)
    scheduler, predictor = BaseModel(small_world["pipeline"]).scheduler(), Linear()
    noise, own = torch.randn(2, 4, 8, 8), torch.randn(2, 8, 16)
    level, timesteps = draw_noise_level(images, 1000, 2, ("unlearning", 0, step))
    noisy = PartialSampler(images, predictor, scheduler, torch.zeros(2, 8, 16)).sample_until(level, noise, own)
    assert ((timesteps >= 100 * level) & (timesteps < 100 * (level + 1))).all()
    assert predictor.calls == [(4, 100 * index + 1) for index in range(9, level, -1)], "both guided halves at once"
    torch.testing.assert_close(noisy, by_hand(images, level, scheduler.alphas_cumprod, noise, own))


def test_every_noise_level_is_drawn() -> None:
    images = SampledImages(kind="sampled", steps=4, guidance_scale=1.0, **SWITCHES)
    drawn = [draw_noise_level(images, 1000, 3, ("a", step)) for step in range(60)]
    assert {level for level, _ in drawn} == {0, 1, 2, 3}
    assert all(int(timestep) // 250 == level for level, timesteps in drawn for timestep in timesteps)


def test_the_model_in_training_samples_and_gets_no_gradient_from_it(small_world: dict[str, Manifest]) -> None:
    settings = unlearning_settings(PAPER.methods["esd_released"].objective, candidates={"Amber": [""]}, batch=1)
    base = BaseModel(small_world["pipeline"])
    models = StudentAndTeacher(base.unet(), settings.trained, Device(FP32, 1))
    data = training_data(small_world, settings)
    batches, images = Batches(settings, data), settings.objective.unlearn.images
    sampler = PartialSampler(images, models.student, base.scheduler(), data.empty_prompts(1))
    # a step at which sampling stops halfway
    step = next(step for step in range(50) if int(batches.at(step).forget.timesteps) < 500)
    before = sampler.complete(batches.at(step)).forget
    assert not before.noisy.requires_grad
    with torch.no_grad():
        for parameter in models.trained.values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    after = sampler.complete(batches.at(step)).forget
    assert not torch.allclose(before.noisy, after.noisy), "the current model samples"
    assert torch.equal(before.timesteps, after.timesteps)


def test_training_on_sampled_images_does_not_depend_on_the_base_models_scheduler(
    small_world: dict[str, Manifest], tmp_path: Path
) -> None:
    """Otherwise, options that the scheduler's file lacks would be diffusers' defaults and not settings of the run."""
    settings = unlearning_settings(PAPER.methods["esd_released"].objective, candidates={"Amber": [""]}, batch=1)
    trained = []
    for name, pipeline in (
        ("ddim", small_world["pipeline"]),
        ("pndm", with_another_scheduler(small_world["pipeline"], tmp_path / "world")),
    ):
        (tmp_path / name).mkdir()
        unlearn(
            settings,
            StageContext(tmp_path / name, "digest", small_world | {"pipeline": pipeline}, checkpoint_seconds=1e9),
        )
        trained.append(load_file(tmp_path / name / DELTA_FILE))
    assert all(torch.equal(tensor, trained[1][name]) for name, tensor in trained[0].items())


@pytest.mark.parametrize("switch", SWITCHES)
def test_the_options_of_sampled_images_are_those_of_the_released_sampler(switch: str) -> None:
    """CompVis' DDIM has equidistant timesteps from 1, does not clip x_0, and has no final step to a clean image."""
    images = PAPER.methods["esd_released"].objective.unlearn.images
    assert isinstance(images, SampledImages) and images.switches[switch] == SWITCHES[switch]


def test_sampled_images_have_no_gaussian_target() -> None:
    with pytest.raises(ValidationError, match="the noise in a sampled x_t is unknown"):
        UnlearnTerm.model_validate(
            {
                "images": {"kind": "sampled", "steps": 50, "guidance_scale": 3.0, **SWITCHES},
                "target": {"kind": "gaussian_noise"},
                "weight": 1.0,
                "distance": "squared",
            }
        )


# Generated anchors


def test_latents_of_generated_images_are_those_of_the_sampled_files(small_world: dict[str, Manifest]) -> None:
    cache = LatentCache.of_run(small_world["generated"])
    autoencoder = BaseModel(small_world["pipeline"]).autoencoder()
    for pair in (Pair("Blue", "Dogs", 2), Pair("Cream", "Cats", 3)):
        path = small_world["samples"].folder / IMAGES / image_name(pair.style, pair.object, pair.index)
        with torch.no_grad():
            posterior = autoencoder.encode(preprocess(read_image(path), ENCODING)[None]).latent_dist
        expected = posterior.mean * float(autoencoder.config["scaling_factor"])
        torch.testing.assert_close(cache.draw([pair], torch.zeros(1, *cache.shape)), expected, rtol=1e-4, atol=1e-5)


def test_generated_images_show_the_anchor_and_are_prompted_with_the_forget_concept(
    small_world: dict[str, Manifest],
) -> None:
    generated = unlearning_settings(PAPER.methods["ca_released"].objective)
    real = unlearning_settings(PAPER.methods["ca_model"].objective)
    batches = [Batches(settings, training_data(small_world, settings)) for settings in (generated, real)]
    one, other = (batch.at(0).forget for batch in batches)
    assert torch.equal(one.own, other.own) and torch.equal(one.anchor, other.anchor)
    assert torch.equal(one.noise, other.noise) and torch.equal(one.timesteps, other.timesteps)
    assert not torch.allclose(one.noisy, other.noisy)


# Training of keys and values only


@pytest.mark.parametrize("method", RELEASED)
def test_exactly_the_trained_tensors_change(method: str, small_world: dict[str, Manifest], tmp_path: Path) -> None:
    recipe = PAPER.methods[method]
    candidates = {"Amber": [""]} if method == "esd_released" else {"Amber": ["Blue", "Cream"]}
    settings = unlearning_settings(recipe.objective, trained=recipe.trained, candidates=candidates, batch=recipe.batch)
    outcome = unlearn(settings, StageContext(tmp_path, "digest", small_world, checkpoint_seconds=1e9))
    assert outcome.facts["diverged_at"] is None
    base = BaseModel(small_world["pipeline"])
    before = base.unet().state_dict()
    unlearned = base.unet()
    load_delta(tmp_path / DELTA_FILE, unlearned, base.unet_sha256)
    changed = {name for name, tensor in unlearned.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == set(load_file(tmp_path / DELTA_FILE)) == set(trained_parameters(base.unet(), recipe.trained))
    if method == "ca_released":
        assert all(".attn2.to_k." in name or ".attn2.to_v." in name for name in changed)


def test_a_delta_of_keys_and_values_is_not_loaded_as_one_of_all_cross_attention(
    small_world: dict[str, Manifest], tmp_path: Path
) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    settings = unlearning_settings(PAPER.methods["ca_released"].objective, trained="keys_and_values")
    unlearn(settings, StageContext(tmp_path, "digest", small_world, checkpoint_seconds=1e9))
    with safe_open(tmp_path / DELTA_FILE, framework="pt") as file:
        header = json.loads(file.metadata()["delta"])
    assert header["trained"] == "keys_and_values"
    wrong = {"delta": json.dumps(header | {"trained": "cross_attention"})}
    save_file(load_file(tmp_path / DELTA_FILE), tmp_path / "wrong.safetensors", metadata=wrong)
    base = BaseModel(small_world["pipeline"])
    with pytest.raises(ArtefactError, match="the names of its tensors are not those of the trained tensors"):
        load_delta(tmp_path / "wrong.safetensors", base.unet(), base.unet_sha256)


# The paper's study


@pytest.mark.parametrize("method", RELEASED)
def test_a_released_variant_has_the_rate_batch_and_length_of_the_method_in_the_paper(method: str) -> None:
    variant, paper = PAPER.methods[method], PAPER.methods[{"ca_released": "ca_model"}.get(method, method[:-9])]
    assert (variant.learning_rate, variant.batch) == (paper.learning_rate, paper.batch)
    assert all(paper.length[task] == length for task, length in variant.length.items())


def test_no_table_of_the_paper_has_a_released_variant() -> None:
    rows = {row.method for table in PAPER.tables.values() for row in PAPER.rows_of(table.rows)}
    assert not rows & set(RELEASED)


def test_the_empty_scheme_gives_the_empty_prompt_and_images_of_it_are_refused() -> None:
    from corelib.study.consistency import find_inconsistencies
    from corelib.study.plan import Plan

    plan = Plan("paper", PAPER, [])
    assert plan.candidates(PAPER.tasks["Forget06"], "empty") == {s: [""] for s in PAPER.tasks["Forget06"].forget}
    wrong = PAPER.methods["ca_released"].model_copy(update={"anchors": {"Forget01": "empty"}})
    table = PAPER.tables["table1"].model_copy(update={"tasks": ["Forget01"], "rows": ["ca_released"]})
    study = PAPER.model_copy(
        update={"methods": {**PAPER.methods, "ca_released": wrong}, "tables": {"table1": table}, "figures": {}}
    )
    (inconsistency,) = find_inconsistencies(study)
    assert inconsistency.key == "methods.ca_released.anchors.Forget01"
    assert "images: generated" in inconsistency.expected


def test_equation_8_with_an_empty_base_is_the_released_codes_loss(small_world: dict[str, Manifest]) -> None:
    """Their line: MSE(e_n, e_0 - 1 (e_p - e_0)) with e_0 at the empty prompt."""
    from corelib.unlearning.objective import compute_loss

    objective: Objective = PAPER.methods["esd_released"].objective
    settings = unlearning_settings(objective, candidates={"Amber": [""]}, batch=1)
    base = BaseModel(small_world["pipeline"])
    models = StudentAndTeacher(base.unet(), "cross_attention", Device(FP32, 1))
    data = training_data(small_world, settings)
    images = settings.objective.unlearn.images
    sampler = PartialSampler(images, models.student, base.scheduler(), data.empty_prompts(1))
    batch = sampler.complete(Batches(settings, data).at(3))
    batch = replace(batch, forget=replace(batch.forget, timesteps=torch.tensor([371])))
    loss = compute_loss(objective, models.student, models.teacher, batch, "mean")
    unet, pairs = base.unet(), batch.forget
    with torch.no_grad():
        empty, own = (
            unet(pairs.noisy, 371, encoder_hidden_states=prompts).sample
            for prompts in (data.empty_prompts(1), pairs.own)
        )
    torch.testing.assert_close(loss.total.detach(), (own - (empty - 1.0 * (own - empty))).square().mean())
