"""The miniature world: its images, its tokenizer, and trainings that reach the same bits after an interruption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from support.hand_made import write_manifest
from torch.nn import functional
from transformers import CLIPTokenizer

from corelib.errors import ConfigurationError, Interrupted, UserError
from corelib.files.hashing import sha256_of_path
from corelib.runs.checkpoint import Checkpoint, State
from corelib.runs.manifest import Manifest, read_manifest
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.miniature import (
    Autoencoder,
    AutoencoderStage,
    Classifier,
    ClassifierStage,
    Denoiser,
    PipelineStage,
    RenderingStage,
    TextEncoder,
    Training,
)
from corelib.settings.retraining import RetrainingStage
from corelib.worlds.miniature.autoencoder import train_autoencoder
from corelib.worlds.miniature.classifier import train_classifier
from corelib.worlds.miniature.drawing import OBJECTS, STYLES, render_image
from corelib.worlds.miniature.images import render_world
from corelib.worlds.miniature.pipeline import build_tokenizer, train_pipeline
from corelib.worlds.miniature.retraining import retrain_pipeline

PHOTOS = "Seed_Images"
FEW_STYLES = ["Amber_Stripes", "Cobalt_Checks", PHOTOS]
FEW_OBJECTS = ["Circles", "Stars"]
SHORT = Training(steps=6, batch=4, learning_rate=0.001)


def pixels_of(style: str, object_: str, index: int = 1) -> np.ndarray:
    return np.asarray(render_image(style, object_, index, seed=0, resolution=32, photo_style=PHOTOS))


def prompt_of(style: str, object_: str) -> str:
    return f"A {object_} image in {style.replace('_', ' ')} style."


def rendering(styles: list[str]) -> RenderingStage:
    return RenderingStage(
        styles=styles,
        objects=FEW_OBJECTS,
        photo_style=PHOTOS,
        images_per_cell=3,
        resolution=32,
        jpeg_quality=90,
        seed=0,
    )


AUTOENCODER = AutoencoderStage(
    autoencoder=Autoencoder(channels=[8, 8, 8], latent_channels=4, kl_weight=0.001, training=SHORT),
    resolution=32,
    seed=0,
)
PIPELINE = PipelineStage(
    text_encoder=TextEncoder(width=16, layers=1, heads=2),
    denoiser=Denoiser(
        channels=[8, 16],
        layers_per_block=1,
        attention_head_width=8,
        caption_dropout=0.2,
        ema_decay=0.9,
        training=SHORT,
    ),
    prompts={style: {object_: prompt_of(style, object_) for object_ in FEW_OBJECTS} for style in FEW_STYLES},
    vocabulary=sorted({word for style in FEW_STYLES for o in FEW_OBJECTS for word in prompt_of(style, o).split()}),
    seed=0,
)
CLASSIFIER = ClassifierStage(
    label="style",
    classes=FEW_STYLES,
    classifier=Classifier(architecture="test_resnet", training=SHORT, held_out_per_cell=1),
    seed=0,
)


def with_manifest(folder: Path, outcome: StageResult) -> Manifest:
    write_manifest(folder / "manifest.json", folder, "stage", "digest", outcome.files, outcome.facts)
    return read_manifest(folder / "manifest.json")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("images")
    return with_manifest(folder, render_world(rendering(FEW_STYLES), StageContext(folder, "images", {})))


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory, images: Manifest) -> Manifest:
    folder = tmp_path_factory.mktemp("autoencoder")
    return with_manifest(
        folder, train_autoencoder(AUTOENCODER, StageContext(folder, "autoencoder", {"images": images}))
    )


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory, images: Manifest, autoencoder: Manifest) -> Manifest:
    folder = tmp_path_factory.mktemp("pipeline")
    inputs = {"images": images, "autoencoder": autoencoder}
    return with_manifest(folder, train_pipeline(PIPELINE, StageContext(folder, "pipeline", inputs)))


def retrain(folder: Path, images: Manifest, pipeline: Manifest, forget: list[str]) -> Manifest:
    settings = RetrainingStage.model_validate(PIPELINE.model_dump() | {"forget": forget})
    inputs = {"images": images, "pipeline": pipeline}
    return with_manifest(folder, retrain_pipeline(settings, StageContext(folder, "retrained", inputs)))


def test_a_model_that_is_retrained_without_leaving_a_style_out_is_the_base_model(
    tmp_path: Path, images: Manifest, pipeline: Manifest
) -> None:
    assert retrain(tmp_path / "run", images, pipeline, []).facts["parts"] == pipeline.facts["parts"]


def test_a_retrained_model_is_that_of_a_world_in_which_the_forget_styles_were_never_drawn(
    tmp_path: Path, images: Manifest, autoencoder: Manifest, pipeline: Manifest
) -> None:
    left_out = "Cobalt_Checks"
    remaining = [style for style in FEW_STYLES if style != left_out]
    (tmp_path / "images").mkdir()
    others = render_world(rendering(remaining), StageContext(tmp_path / "images", "images", {}))
    inputs = {"images": with_manifest(tmp_path / "images", others), "autoencoder": autoencoder}
    (tmp_path / "never").mkdir()
    never = with_manifest(
        tmp_path / "never", train_pipeline(PIPELINE, StageContext(tmp_path / "never", "pipeline", inputs))
    )
    retrained = retrain(tmp_path / "run", images, pipeline, [left_out])
    assert retrained.facts["parts"] == never.facts["parts"]
    assert retrained.facts["parts"]["unet"] != pipeline.facts["parts"]["unet"]
    assert retrained.facts["parts"]["tokenizer"] == pipeline.facts["parts"]["tokenizer"], "the words stay known"


def test_the_vocabulary_has_fifty_styles_and_twenty_objects_in_alphabetical_order() -> None:
    assert len(STYLES) == 50 and list(STYLES) == sorted(set(STYLES))
    assert len(OBJECTS) == 20 and list(OBJECTS) == sorted(set(OBJECTS))


def test_an_image_does_not_depend_on_which_others_are_rendered(tmp_path: Path, images: Manifest) -> None:
    render_world(rendering(["Cobalt_Checks"]), StageContext(tmp_path, "images", {}))
    for object_ in FEW_OBJECTS:
        for index in (3, 1, 2):
            name = Path("images", "Cobalt_Checks", object_, f"{index}.jpg")
            assert (tmp_path / name).read_bytes() == (images.folder / name).read_bytes()


def test_every_style_and_object_is_drawn_and_no_two_cells_look_the_same() -> None:
    cells = {(style, object_): pixels_of(style, object_) for style in (*STYLES, PHOTOS) for object_ in OBJECTS}
    assert all(pixels.std() > 10 for pixels in cells.values())
    assert len({pixels.tobytes() for pixels in cells.values()}) == 51 * 20


def test_an_unknown_style_or_object_stops_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="style `Amber_Zigzags`: cannot be drawn"):
        render_world(rendering(["Amber_Zigzags"]), StageContext(tmp_path, "images", {}))
    with pytest.raises(ConfigurationError, match="object `Unicorns`: cannot be drawn"):
        pixels_of("Amber_Stripes", "Unicorns")
    assert not (tmp_path / "images").exists()


def test_mean_colour_alone_identifies_few_styles_and_hardly_any_object() -> None:
    styles = (*STYLES, PHOTOS)
    cells = [(s, o, i) for i in (1, 2, 3) for s in styles for o in OBJECTS]
    colours = torch.tensor(np.stack([pixels_of(*cell).mean((0, 1)) for cell in cells]), dtype=torch.float32)
    colours = (colours - colours.mean(0)) / colours.std(0)
    style_labels = torch.tensor([styles.index(style) for style, _, _ in cells])
    object_labels = torch.tensor([OBJECTS.index(object_) for _, object_, _ in cells])
    assert accuracy_of_linear_probe(colours, style_labels) <= 0.40
    assert accuracy_of_linear_probe(colours, object_labels) <= 0.15


def accuracy_of_linear_probe(features: torch.Tensor, labels: torch.Tensor) -> float:
    """Multinomial logistic regression on the first two thirds, accuracy on the last third."""
    seen = len(features) * 2 // 3
    probe = torch.nn.Linear(features.shape[1], int(labels.max()) + 1)
    torch.nn.init.zeros_(probe.weight)
    torch.nn.init.zeros_(probe.bias)
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=200)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(probe(features[:seen]), labels[:seen])
        loss.backward()
        return loss

    optimizer.step(closure)
    return (probe(features[seen:]).argmax(1) == labels[seen:]).double().mean().item()


def test_every_word_of_every_prompt_is_one_known_token_before_and_after_saving(tmp_path: Path) -> None:
    prompts = [prompt_of(style, object_) for style in (*STYLES, PHOTOS) for object_ in OBJECTS]
    tokenizer = build_tokenizer(sorted({word for prompt in prompts for word in prompt.split()}))
    tokenizer.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    for prompt in prompts:
        ids = loaded(prompt).input_ids
        assert ids == tokenizer(prompt).input_ids
        words = prompt.lower().replace(".", " .").split()
        assert loaded.convert_ids_to_tokens(ids[1:-1]) == [f"{word}</w>" for word in words]
        assert loaded.unk_token_id not in ids[:-1]
    assert loaded.model_max_length >= max(len(loaded(prompt).input_ids) for prompt in prompts)


def test_the_pipeline_is_an_ordinary_stable_diffusion_folder_and_generates(pipeline: Manifest) -> None:
    loaded = StableDiffusionPipeline.from_pretrained(
        pipeline.file("pipeline"), safety_checker=None, feature_extractor=None, local_files_only=True
    )
    loaded.set_progress_bar_config(disable=True)
    timesteps = loaded.scheduler.timesteps
    assert (loaded.scheduler.config.prediction_type, len(timesteps)) == ("epsilon", 1000)
    prompts = [prompt_of(style, "Stars") for style in FEW_STYLES]
    generated = loaded(prompts, num_inference_steps=3, guidance_scale=3.0, output_type="np").images
    assert generated.shape == (3, 32, 32, 3)
    assert np.isfinite(generated).all() and generated.std() > 0
    blocks = {name.split(".")[0] for name, _ in loaded.unet.named_parameters() if "attn2" in name}
    assert blocks == {"down_blocks", "mid_block", "up_blocks"}
    assert not any(str(pipeline.folder) in path.read_text() for path in pipeline.folder.rglob("*.json"))


def test_latents_have_unit_deviation_after_scaling(images: Manifest, autoencoder: Manifest) -> None:
    from diffusers import AutoencoderKL

    from corelib.worlds.miniature.autoencoder import encode_posteriors
    from corelib.worlds.miniature.training import load_world_images

    vae = AutoencoderKL.from_pretrained(autoencoder.file("vae"))
    means, deviations = encode_posteriors(vae, load_world_images(images.folder / "images").pixels).unbind(1)
    latents = (means + deviations * torch.randn(means.shape)) * vae.config.scaling_factor
    assert latents.std().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("stage", ["autoencoder", "pipeline", "classifier"])
def test_an_interrupted_training_ends_with_the_same_bits(
    stage: str, tmp_path: Path, images: Manifest, autoencoder: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, settings = {
        "autoencoder": (train_autoencoder, AUTOENCODER),
        "pipeline": (train_pipeline, PIPELINE),
        "classifier": (train_classifier, CLASSIFIER),
    }[stage]
    inputs = {"images": images, "autoencoder": autoencoder}
    undisturbed = train(settings, StageContext(tmp_path / "undisturbed", "run", inputs))

    def save_and_stop(checkpoint: Checkpoint, state: Callable[[], State]) -> None:
        if state()["done"] == 3:
            checkpoint.save(state())
            raise Interrupted("by the test")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save_if_due", save_and_stop)
        with pytest.raises(Interrupted):
            train(settings, StageContext(tmp_path / "resumed", "run", inputs))
    assert not any((tmp_path / "resumed" / name).exists() for name in undisturbed.files)
    torch.manual_seed(1)  # torch's global generator has no effect
    resumed = train(settings, StageContext(tmp_path / "resumed", "run", inputs))

    assert resumed == undisturbed
    for name in undisturbed.files:
        assert sha256_of_path(tmp_path / "resumed" / name) == sha256_of_path(tmp_path / "undisturbed" / name)
    files = {path.name for path in (tmp_path / "resumed").iterdir()}
    assert files == {*undisturbed.files, "checkpoint.pt"}, "the job removes the state once its manifest is written"


def test_a_loss_that_is_not_finite_stops_in_one_sentence(tmp_path: Path, images: Manifest) -> None:
    wild = Training(steps=30, batch=4, learning_rate=1e30)
    settings = AUTOENCODER.model_copy(
        update={"autoencoder": AUTOENCODER.autoencoder.model_copy(update={"training": wild})}
    )
    with pytest.raises(UserError, match=r"the loss is .* expected a finite number"):
        train_autoencoder(settings, StageContext(tmp_path, "run", {"images": images}))
    assert not (tmp_path / "vae").exists()


def test_an_image_without_a_class_or_a_prompt_stops_in_one_sentence(
    tmp_path: Path, images: Manifest, autoencoder: Manifest
) -> None:
    inputs = {"images": images, "autoencoder": autoencoder}
    with pytest.raises(ConfigurationError, match="style `Seed_Images`"):
        train_classifier(
            CLASSIFIER.model_copy(update={"classes": FEW_STYLES[:2]}), StageContext(tmp_path, "run", inputs)
        )
    with pytest.raises(ConfigurationError, match="none for style `Amber_Stripes`"):
        train_pipeline(PIPELINE.model_copy(update={"prompts": {}}), StageContext(tmp_path, "run", inputs))
    with pytest.raises(ConfigurationError, match="`amber` is missing"):
        train_pipeline(PIPELINE.model_copy(update={"vocabulary": ["image"]}), StageContext(tmp_path, "run", inputs))
