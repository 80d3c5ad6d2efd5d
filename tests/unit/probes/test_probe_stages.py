"""The stages of probes: what they change, what they leave, interruptions, and the form of their results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.small_world import (
    FP32,
    IN_EVALUATION,
    IN_TRAINING,
    OBJECTS,
    finish,
    make_small_world,
    samples_settings,
)

from corelib.data.embeddings import EmbeddingCache, embed_texts
from corelib.data.latents import LatentCache
from corelib.data.slices import Pair
from corelib.errors import ArtefactError, AssetError, ConfigurationError, Interrupted
from corelib.models.base_model import BaseModel
from corelib.models.delta import DELTA_FILE, Delta, load_delta, read_delta
from corelib.models.trained_parameters import trained_parameters
from corelib.probes import resampling
from corelib.probes.fine_tuning import noisy_images
from corelib.probes.inversion import find_prefixes, invert_concepts
from corelib.probes.learned_prompts import LearnedPrefixes, LearnedWords
from corelib.probes.relearning import relearn
from corelib.probes.resampling import NoisedImageSampler, resample, steps_taken
from corelib.runs.checkpoint import Checkpoint
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext, StageResult
from corelib.sampling.collection import image_paths
from corelib.sampling.grid import IMAGES, split_into_batches
from corelib.sampling.sampler import Sampler, initial_noise
from corelib.settings.probes import InversionStage, PrefixStage, RelearningStage, ResampledStage
from corelib.settings.unlearning import Adam

ADAM = Adam(betas=[0.9, 0.999], epsilon=1e-8, weight_decay=0.0)
AMBER = [("Amber", object_, index) for object_ in OBJECTS for index in (1, 2)]


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    return make_small_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def run(small_world: dict[str, Manifest], tmp_path: Path) -> Callable[..., Manifest]:
    """A function that runs a stage in a new or given folder and returns the manifest of its result."""
    count = iter(range(1000))

    def completed(stage: Any, settings: Any, folder: str = "", **inputs: Manifest) -> Manifest:
        work = StageContext(
            tmp_path / (folder or f"run{next(count)}"), "digest", small_world | inputs, checkpoint_seconds=1e9
        )
        work.folder.mkdir(exist_ok=True)
        return finish(work.folder, stage.__name__, stage(settings, work))

    return completed


def relearning_settings(**changes: Any) -> RelearningStage:
    leaves: dict[str, Any] = {
        "images": AMBER,
        "learning_rate": 1e-3,
        "batch": 2,
        "steps": 6,
        "optimizer": ADAM,
        "wording": IN_TRAINING,
        "precision": FP32,
        "seed": 0,
        "trained": "cross_attention",
    }
    return RelearningStage(**(leaves | changes))


def inversion_settings(**changes: Any) -> InversionStage:
    leaves = relearning_settings().model_dump(exclude={"trained"}) | {
        "images": [*AMBER, ("Blue", "Cats", 1)],
        "wording": IN_EVALUATION,
        "concepts": [(style, object_) for style in ("Amber", "Blue") for object_ in OBJECTS],
        "negative_prompt": "",
        "start": "name",
    }
    return InversionStage(**(leaves | changes))


def prefix_settings(**changes: Any) -> PrefixStage:
    leaves = inversion_settings().model_dump(exclude={"start"}) | {"tokens": 2, "learning_rate": 0.5}
    return PrefixStage(**(leaves | changes))


SETTINGS = {relearn: relearning_settings, invert_concepts: inversion_settings, find_prefixes: prefix_settings}


def interrupt_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first training that follows receive a termination signal after some steps."""
    numbers, save_if_due = iter(range(1, 100)), Checkpoint.save_if_due

    def interrupted(self: Checkpoint, state: Any) -> None:
        self._must_end = next(numbers) == steps
        save_if_due(self, state)

    monkeypatch.setattr(Checkpoint, "save_if_due", interrupted)


# Fine-tuning


def test_noisy_images_have_the_variance_of_the_schedule(small_world: dict[str, Manifest]) -> None:
    latents = LatentCache.of_run(small_world["latents"])
    alphas = BaseModel(small_world["pipeline"]).scheduler().alphas_cumprod
    batch = noisy_images(latents, AMBER, alphas, ("test", 1))
    kept = alphas[batch.timesteps].view(-1, 1, 1, 1)
    clean = (batch.noisy - (1 - kept).sqrt() * batch.noise) / kept.sqrt()
    means = latents.draw([Pair(*image) for image in AMBER], torch.zeros(len(AMBER), *latents.shape))
    deviations = latents.draw([Pair(*image) for image in AMBER], torch.ones(len(AMBER), *latents.shape)) - means
    assert ((clean - means).abs() <= 6 * deviations + 1e-3).all()


# Relearning


@pytest.mark.parametrize(("trained", "part"), [("cross_attention", "attn2."), ("keys_and_values", ".to_"), ("all", "")])
def test_relearning_changes_the_trained_tensors_and_no_others(
    trained: str, part: str, run: Callable[..., Manifest], small_world: dict[str, Manifest]
) -> None:
    base = BaseModel(small_world["pipeline"])
    result = run(relearn, relearning_settings(trained=trained))
    before, after = base.unet(), base.unet()
    load_delta(result.file(DELTA_FILE), after, base.unet_sha256)
    names = set(trained_parameters(before, trained))  # type: ignore[arg-type]
    old, new = dict(before.named_parameters()), dict(after.named_parameters())
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed <= names and all(part in name for name in changed)
    assert len(changed) > len(names) / 2
    assert result.facts["diverged_at"] is None


def test_relearning_reduces_the_loss_on_its_images(
    run: Callable[..., Manifest], small_world: dict[str, Manifest]
) -> None:
    base = BaseModel(small_world["pipeline"])
    result = run(relearn, relearning_settings(steps=60, trained="all", batch=4))
    latents, embeddings = (
        LatentCache.of_run(small_world["latents"]),
        EmbeddingCache.of_run(small_world["embeddings"]),
    )
    images = AMBER * 16
    batch = noisy_images(latents, images, base.scheduler().alphas_cumprod, ("unseen",))
    prompts = embeddings.of([IN_TRAINING.prompt(style, object_) for style, object_, _ in images])

    def loss(unet: Any) -> float:
        with torch.no_grad():
            predicted = unet(batch.noisy, batch.timesteps, encoder_hidden_states=prompts).sample
        return float((predicted - batch.noise).square().mean())

    relearned = base.unet()
    load_delta(result.file(DELTA_FILE), relearned, base.unet_sha256)
    assert loss(relearned) < 0.9 * loss(base.unet())


def unlearned(folder: Path, small_world: dict[str, Manifest], trained: Any, diverged_at: int | None = None) -> Manifest:
    """A delta in which the tensors of a set are halved."""
    base = BaseModel(small_world["pipeline"])
    tensors = {name: parameter.detach() / 2 for name, parameter in trained_parameters(base.unet(), trained).items()}
    folder.mkdir()
    Delta(tensors, trained, base.unet_sha256, "digest").save(folder / DELTA_FILE)
    return finish(folder, "unlearning", StageResult([DELTA_FILE], {"diverged_at": diverged_at}))


@pytest.mark.parametrize("start", ["keys_and_values", "cross_attention", "all"])
@pytest.mark.parametrize("trained", ["keys_and_values", "cross_attention", "all"])
def test_a_relearned_delta_keeps_what_unlearning_has_changed(
    start: str, trained: str, run: Callable[..., Manifest], small_world: dict[str, Manifest], tmp_path: Path
) -> None:
    delta = unlearned(tmp_path / "delta", small_world, start)
    result = run(relearn, relearning_settings(trained=trained, learning_rate=1e-30, steps=1), delta=delta)
    base = BaseModel(small_world["pipeline"])
    before, after = base.unet(), base.unet()
    load_delta(delta.file(DELTA_FILE), before, base.unet_sha256)
    load_delta(result.file(DELTA_FILE), after, base.unet_sha256)
    for name, parameter in before.named_parameters():
        assert torch.allclose(parameter, dict(after.named_parameters())[name], rtol=0, atol=1e-20), name
    sets = ["keys_and_values", "cross_attention", "all"]
    assert read_delta(result.file(DELTA_FILE)).trained == max(start, trained, key=sets.index)


def test_relearning_says_that_the_model_has_diverged_before(
    run: Callable[..., Manifest], small_world: dict[str, Manifest], tmp_path: Path
) -> None:
    delta = unlearned(tmp_path / "delta", small_world, "cross_attention", diverged_at=3)
    assert run(relearn, relearning_settings(steps=1), delta=delta).facts["diverged_at"] == 3


def test_a_relearning_that_diverges_keeps_the_tensors_before_the_step(run: Callable[..., Manifest]) -> None:
    result = run(relearn, relearning_settings(learning_rate=1e30, steps=8, trained="all"))
    assert result.facts["diverged_at"] is not None
    assert all(torch.isfinite(tensor).all() for tensor in load_file(result.file(DELTA_FILE)).values())


@pytest.mark.parametrize("stage", SETTINGS, ids=lambda stage: stage.__name__)
def test_an_interrupted_fine_tuning_resumes_to_the_same_bits(
    stage: Any, run: Callable[..., Manifest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = SETTINGS[stage]()
    undisturbed = run(stage, settings)
    interrupt_after(3, monkeypatch)
    with pytest.raises(Interrupted):
        run(stage, settings, folder="interrupted")
    monkeypatch.undo()
    assert (tmp_path / "interrupted/checkpoint.pt").exists()
    assert run(stage, settings, folder="interrupted").files == undisturbed.files


# Inversion


def embedded(result: Manifest, style: str) -> torch.Tensor:
    return EmbeddingCache.of_run(result).of([IN_EVALUATION.prompt(style, object_) for object_ in OBJECTS])


def test_a_word_that_has_learned_nothing_is_the_name_of_the_style(small_world: dict[str, Manifest]) -> None:
    base = BaseModel(small_world["pipeline"])
    tokenizer, encoder = base.tokenizer(), base.text_encoder()
    for style in ("Amber", "Seed_Images"):
        words = LearnedWords(tokenizer, encoder, IN_EVALUATION, [style], "name")
        prompts = [IN_EVALUATION.prompt(style, object_) for object_ in OBJECTS]
        usual = embed_texts(tokenizer, encoder, prompts, torch.device("cpu"))
        assert torch.allclose(words.embed(style, OBJECTS), usual, atol=1e-6)
    assert len(words.learned["Seed_Images"]) >= 2
    mean = LearnedWords(tokenizer, encoder, IN_EVALUATION, ["Amber"], "mean")
    assert not torch.allclose(mean.embed("Amber", OBJECTS), usual, atol=1e-3)


def test_an_inversion_changes_the_prompts_of_its_styles_and_no_weights(
    run: Callable[..., Manifest], small_world: dict[str, Manifest]
) -> None:
    result = run(invert_concepts, inversion_settings(learning_rate=0.1))
    usual = EmbeddingCache.of_run(small_world["embeddings"])
    learned = EmbeddingCache.of_run(result)
    assert torch.allclose(learned.of([""]), usual.of([""]))
    for style in ("Amber", "Blue"):
        before = usual.of([IN_EVALUATION.prompt(style, object_) for object_ in OBJECTS])
        assert not torch.allclose(embedded(result, style), before, atol=1e-3)
    with pytest.raises(ArtefactError, match="no embedding"):
        embedded(result, "Cream")


def test_the_word_of_a_style_does_not_depend_on_the_other_styles(run: Callable[..., Manifest]) -> None:
    both = run(invert_concepts, inversion_settings())
    alone = run(invert_concepts, inversion_settings(images=AMBER, concepts=[("Amber", object_) for object_ in OBJECTS]))
    assert torch.equal(embedded(both, "Amber"), embedded(alone, "Amber"))


def test_an_inversion_reads_the_unlearned_model(
    run: Callable[..., Manifest], small_world: dict[str, Manifest], tmp_path: Path
) -> None:
    delta = unlearned(tmp_path / "delta", small_world, "cross_attention")
    original, other = (
        run(invert_concepts, inversion_settings()),
        run(invert_concepts, inversion_settings(), delta=delta),
    )
    assert not torch.equal(embedded(original, "Amber"), embedded(other, "Amber"))


def test_a_prompt_without_the_style_has_no_place_for_a_learned_word(run: Callable[..., Manifest]) -> None:
    nameless = IN_EVALUATION.model_copy(update={"template": "A {object} image."})
    with pytest.raises(ConfigurationError, match="does not name the style Amber"):
        run(invert_concepts, inversion_settings(wording=nameless))


def test_a_prompt_that_is_too_long_is_refused(run: Callable[..., Manifest]) -> None:
    long = IN_EVALUATION.model_copy(update={"template": "A {object} image in {style} style" + " style" * 99})
    with pytest.raises(AssetError, match="learned ones, expected at most"):
        run(invert_concepts, inversion_settings(wording=long))


# Prefixes


def test_a_prefix_consists_of_words_of_the_vocabulary_before_the_usual_prompt(
    run: Callable[..., Manifest], small_world: dict[str, Manifest]
) -> None:
    result = run(find_prefixes, prefix_settings())
    base = BaseModel(small_world["pipeline"])
    tokenizer, encoder = base.tokenizer(), base.text_encoder()
    assert result.facts["prefixes"].keys() == {"Amber", "Blue"}
    prefixes = LearnedPrefixes(tokenizer, encoder, IN_EVALUATION, ["Amber"], 2, seed=0)
    chosen = prefixes._scores("Amber").argmax(dim=1).tolist()
    assert not set(chosen) & set(tokenizer.all_special_ids)
    assert prefixes.prompt_tokens("Amber", "Cats", chosen)[2:] == prefixes.ids(IN_EVALUATION.prompt("Amber", "Cats"))
    assert torch.allclose(prefixes.token_embeddings("Amber"), prefixes.table[chosen], atol=1e-5)


def test_a_prefix_that_is_typed_has_the_embedding_that_was_found(
    run: Callable[..., Manifest], small_world: dict[str, Manifest]
) -> None:
    result = run(find_prefixes, prefix_settings())
    base = BaseModel(small_world["pipeline"])
    for style, prefix in result.facts["prefixes"].items():
        typed = [f"{prefix} {IN_EVALUATION.prompt(style, object_)}" for object_ in OBJECTS]
        assert len(prefix.split()) == 2
        usual = embed_texts(base.tokenizer(), base.text_encoder(), typed, torch.device("cpu"))
        assert torch.allclose(embedded(result, style), usual, atol=1e-4)


def test_the_gradient_of_a_prefix_chooses_the_token_that_lowers_a_loss(small_world: dict[str, Manifest]) -> None:
    base = BaseModel(small_world["pipeline"])
    prefixes = LearnedPrefixes(base.tokenizer(), base.text_encoder(), IN_EVALUATION, ["Amber"], 1, seed=0)
    wanted = prefixes.ids("Cream")[0]
    optimizer = torch.optim.Adam(prefixes.learned.values(), lr=0.5)
    for _ in range(60):
        optimizer.zero_grad()
        (prefixes.token_embeddings("Amber") - prefixes.table[wanted]).square().sum().backward()
        optimizer.step()
    assert prefixes._scores("Amber").argmax(dim=1).tolist() == [wanted]


# Partial diffusion

GRID = [("Amber", object_, seed) for object_ in OBJECTS for seed in (1, 2)]


def resampled_settings(level: float, **changes: Any) -> ResampledStage:
    sources = [(style, object_, 1) for style, object_, _ in GRID]
    return ResampledStage(
        **({"samples": samples_settings(GRID, batch=3), "sources": sources, "level": level} | changes)
    )


def pixels(result: Manifest) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path), dtype=float) for path in image_paths(result).values()])


def test_the_number_of_steps_follows_from_the_level() -> None:
    assert [steps_taken(level, 20) for level in (0.001, 0.1, 0.5, 1.0)] == [1, 2, 10, 20]


def test_a_lower_level_stays_closer_to_the_real_image(
    run: Callable[..., Manifest], small_world: dict[str, Manifest]
) -> None:
    base = BaseModel(small_world["pipeline"])
    latents, autoencoder = LatentCache.of_run(small_world["latents"]), base.autoencoder()
    clean = latents.draw([Pair("Amber", object_, 1) for (object_,) in zip(OBJECTS)], torch.zeros(2, *latents.shape))
    with torch.no_grad():
        decoded = autoencoder.decode(clean / autoencoder.config["scaling_factor"]).sample / 2 + 0.5
    real = 255 * decoded.clamp(0, 1).permute(0, 2, 3, 1).repeat_interleave(2, dim=0).numpy()
    distances = [np.abs(pixels(run(resample, resampled_settings(level))) - real).mean() for level in (0.01, 1.0)]
    assert distances[0] < distances[1]


def test_restored_images_are_judged_as_sampled_ones_are(run: Callable[..., Manifest]) -> None:
    result = run(resample, resampled_settings(0.5))
    assert list(image_paths(result)) == GRID
    assert result.facts["diverged_at"] is None
    assert result.facts["flagged"] == []


def test_another_real_image_gives_another_restored_image(run: Callable[..., Manifest]) -> None:
    other = [(style, object_, 2) for style, object_, _ in GRID]
    first, second = run(resample, resampled_settings(0.5)), run(resample, resampled_settings(0.5, sources=other))
    assert not np.array_equal(pixels(first), pixels(second))


def test_a_repeated_resampling_restores_only_what_is_missing(
    run: Callable[..., Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(resample, resampled_settings(0.5), folder="same")
    (tmp_path / "same" / IMAGES / "Amber_Dogs_seed2.jpg").unlink()
    sampled = []
    sample = resampling.NoisedImageSampler.sample
    monkeypatch.setattr(
        resampling.NoisedImageSampler,
        "sample",
        lambda self, images: (sampled.append(images), sample(self, images))[1],
    )
    assert run(resample, resampled_settings(0.5), folder="same").files == first.files
    assert sampled == [split_into_batches(resampled_settings(0.5).samples)[1]]


def test_the_sampler_of_the_stage_samples_starts_from_the_same_noise(
    run: Callable[..., Manifest], small_world: dict[str, Manifest]
) -> None:
    """If pure noise takes the place of the noised images, level 1 is the sampling of the stage `samples`."""
    context = StageContext(Path(), "digest", small_world)
    sampler = NoisedImageSampler(resampled_settings(1.0), context)
    sampler._noised = lambda images, timestep: initial_noise(images, (4, 8, 8))  # type: ignore[method-assign]
    usual = Sampler(samples_settings(GRID, batch=3), context)
    assert torch.equal(sampler.images_of(GRID[:3]), usual.images_of(GRID[:3]))
