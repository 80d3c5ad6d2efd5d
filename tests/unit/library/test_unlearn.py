"""Unlearning on a pipeline in memory: equal to the workflow's stages bit for bit, and without effects on the user's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler, PNDMScheduler
from PIL import Image
from safetensors.torch import load_file
from support.miniature import FACTS, MINI, SHIPPED, WORDING, render, shipped_pipeline
from support.small_world import finish, make_pipeline

from corelib.data.embeddings import embed_prompts
from corelib.data.latents import encode_images
from corelib.data.slices import slice_images
from corelib.errors import AssetError, ConfigurationError
from corelib.in_memory.paper_methods import paper_study
from corelib.library import methods, unlearn
from corelib.models.base_model import BaseModel
from corelib.models.delta import DELTA_FILE, load_delta
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.data import EmbeddingsStage, LatentsStage, SliceStage
from corelib.settings.precision import TrainingPrecision
from corelib.settings.unlearning import Length, SaliencyStage, UnlearningStage
from corelib.unlearning import saliency, trainer
from corelib.unlearning.training_file import TRAINING_COLUMNS, read_training

FORGET, ANCHOR, RETAIN = "Sky_Waves", "Amber_Dots", "Teal_Stripes"
OBJECTS, INDICES = ["Circles", "Crosses"], [1, 2]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in the workflow; networks this small are slower with two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("images")
    for style in (FORGET, ANCHOR, RETAIN):
        for object_ in OBJECTS:
            cell = folder / "images" / style / object_
            cell.mkdir(parents=True)
            for index in INDICES:
                render(style, object_, index).save(cell / f"{index}.jpg", quality=95)
    return finish(folder, "images", StageResult(["images"], {"images": "images"}))


def examples(images: Manifest, style: str) -> tuple[list[Path], list[str]]:
    """The files of a style's images, and their prompts, in the order of slices."""
    cells = [(object_, index) for object_ in OBJECTS for index in INDICES]
    files = [images.folder / "images" / style / object_ / f"{index}.jpg" for object_, index in cells]
    return files, [WORDING.prompt(style, object_) for object_, _ in cells]


def unlearn_in_memory(images: Manifest, pipeline: Any, method: str, **options: Any) -> Any:
    (forget, own), (anchor, instead), (retain, kept) = (examples(images, style) for style in (FORGET, ANCHOR, RETAIN))
    arguments = {"method": method, "anchor_images": anchor, "learning_rate": 1e-3, "batch": 3, "steps": 3} | options
    return unlearn(pipeline, forget, own, instead, retain, kept, **arguments)


def unlearn_in_stages(images: Manifest, method: str, folder: Path, precision: TrainingPrecision) -> Manifest:
    """The same training by the stages of the workflow."""
    paper, recipe = paper_study(), methods()[method]
    anchors = [ANCHOR] if recipe.objective.unlearn.shows_anchor else []
    retained = [RETAIN] if recipe.objective.retain else []
    (folder / "pipeline").mkdir()
    (folder / "pipeline/pipeline").symlink_to(SHIPPED / "pipeline")
    pipeline = {name: FACTS[name] for name in ("unet", "parts")} | {"pipeline": "pipeline"}
    found = {"images": images, "pipeline": finish(folder / "pipeline", "pipeline", StageResult([], pipeline))}
    concepts = [(style, object_) for style in (FORGET, ANCHOR, *retained) for object_ in OBJECTS]
    trained = {"trained": recipe.trained, "batch": 3, "wording": WORDING, "precision": precision, "seed": 0}
    stages: dict[str, tuple[Any, Any]] = {
        "slice": (slice_images, SliceStage(forget=[FORGET], retain=retained, objects=OBJECTS, images=INDICES)),
        "latents": (
            encode_images,
            LatentsStage(
                styles=[FORGET, *anchors, *retained],
                objects=OBJECTS,
                images=INDICES,
                encoding=paper.encoding.model_copy(update={"resolution": MINI.encoding.resolution}),
            ),
        ),
        "embeddings": (
            embed_prompts,
            EmbeddingsStage(prompts=[*(WORDING.prompt(*concept) for concept in concepts), ""]),
        ),
    }
    if recipe.saliency is not None:
        stages["saliency"] = (
            saliency.find_salient_weights,
            SaliencyStage(saliency=recipe.saliency, **trained),  # type: ignore[arg-type]
        )
    stages["unlearning"] = (
        trainer.unlearn,
        UnlearningStage(
            objective=recipe.objective,
            candidates={FORGET: [ANCHOR]},
            draw=None,
            learning_rate=1e-3,
            length=Length(steps=3),
            min_steps=1,
            batch_counts=paper.training.batch_counts,
            reduction=paper.training.reduction,
            optimizer=paper.training.optimizer,
            kernels=paper.training.kernels,
            **trained,  # type: ignore[arg-type]
        ),
    )
    for name, (stage, settings) in stages.items():
        context = StageContext(folder / name, name, found)
        context.folder.mkdir()
        found[name] = finish(context.folder, name, stage(settings, context))
    return found["unlearning"]


@pytest.mark.parametrize(
    ("method", "precision"),
    [
        ("core", "fp32"),
        ("core", "bf16"),
        ("salun_released", "fp32"),
        ("ca_model", "fp32"),
        pytest.param("esd", "fp32", marks=pytest.mark.slow),
        pytest.param("esd_released", "fp32", marks=pytest.mark.slow),
        pytest.param("ediff_released", "fp32", marks=pytest.mark.slow),
        pytest.param("ca_noise", "bf16", marks=pytest.mark.slow),
    ],
)
def test_the_result_is_that_of_the_workflows_stages_bit_for_bit(
    images: Manifest, tmp_path: Path, method: str, precision: Any
) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)  # a job is a separate process with one precision
    try:
        formats = TrainingPrecision(gpu=precision, cpu=precision)
        with pytest.MonkeyPatch.context() as patch:
            if precision == "bf16":  # encoding is another job, in fp32
                patch.setattr(trainer, "Device", _alone(trainer.Device))
                patch.setattr(saliency, "Device", _alone(saliency.Device))
            stage = unlearn_in_stages(images, method, tmp_path, formats)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    model = unlearn_in_memory(images, shipped_pipeline(), method, precision=precision)
    theirs = load_file(stage.folder / DELTA_FILE)
    assert theirs.keys() == model.delta.tensors.keys()
    assert [name for name, tensor in theirs.items() if not torch.equal(tensor, model.delta.tensors[name])] == []
    values = read_training(stage)
    assert all(np.array_equal(values[name], model.losses[name]) for name in TRAINING_COLUMNS)
    assert len(model.losses["loss"]) == 3 and model.diverged_at is None
    assert model.delta.base == stage.facts["base"]


def _alone(device: Any) -> Any:
    def make(*arguments: Any) -> Any:
        AcceleratorState._reset_state(reset_partial_state=True)
        return device(*arguments)

    return make


def test_the_workflow_reads_a_saved_delta(images: Manifest, tmp_path: Path) -> None:
    model = unlearn_in_memory(images, shipped_pipeline(), "core")
    model.save(tmp_path / "delta.safetensors")
    (tmp_path / "pipeline").symlink_to(SHIPPED / "pipeline")
    base = BaseModel(finish(tmp_path, "pipeline", StageResult([], {**FACTS, "pipeline": "pipeline"})))
    unet = base.unet()
    load_delta(tmp_path / "delta.safetensors", unet, base.unet_sha256)
    assert all(torch.equal(unet.state_dict()[name], tensor) for name, tensor in model.delta.tensors.items())


def test_equal_calls_give_equal_files_and_another_seed_another(images: Manifest, tmp_path: Path) -> None:
    for number, seed in enumerate((0, 0, 1)):
        torch.manual_seed(number)  # the user's random state has no effect
        unlearn_in_memory(images, shipped_pipeline(), "core", seed=seed).save(tmp_path / f"{number}.safetensors")
    first, second, other = (path.read_bytes() for path in sorted(tmp_path.glob("*.safetensors")))
    assert first == second != other


@pytest.fixture(scope="module")
def small_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A pipeline of random weights for 16 pixels."""
    return shipped_pipeline(make_pipeline(tmp_path_factory.mktemp("small")).folder / "pipeline")


def small_images(count: int, seed: int = 0) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize("method", methods())
def test_every_method_of_the_configuration_trains_its_tensors(method: str, small_pipeline: Any) -> None:
    before = {name: tensor.clone() for name, tensor in small_pipeline.unet.state_dict().items()}
    model = unlearn(
        small_pipeline,
        small_images(3),
        ["A Cats image", "A Dogs image", "A Cats image"],
        "",
        small_images(2, seed=1),
        "A Dogs image in Blue style.",
        method=method,
        anchor_images=small_images(3, seed=2),
        steps=1,
        learning_rate=1e-2,
    )
    part = "attn2.to_" if methods()[method].trained == "cross_attention" else "attn2.to_k"
    assert any(part in name for name in model.delta.tensors)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in model.delta.tensors.items())
    assert np.isfinite(model.losses["loss"]).all()
    after = small_pipeline.unet.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_nothing_of_the_users_changes(small_pipeline: Any) -> None:
    unet = small_pipeline.unet
    unet.train()
    flags = [parameter.requires_grad for parameter in unet.parameters()]
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("high")
    state = torch.get_rng_state()
    try:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):  # as in many notebooks
            unlearn(small_pipeline, small_images(1), "A Cats image", "", method="esd", steps=1)
        assert torch.get_float32_matmul_precision() == "high"
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.equal(state, torch.get_rng_state())
        assert [parameter.requires_grad for parameter in unet.parameters()] == flags
        assert unet.training and all(parameter.grad is None for parameter in unet.parameters())
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_changed_method_and_images_in_memory(images: Manifest) -> None:
    """A method may be changed, and an image of Pillow is as good as its file."""
    keys = methods()["core"].model_copy(update={"trained": "keys_and_values"})
    files = unlearn_in_memory(images, shipped_pipeline(), keys)  # type: ignore[arg-type]
    assert all(".to_k." in name or ".to_v." in name for name in files.delta.tensors)
    (forget, own), (retain, kept) = examples(images, FORGET), examples(images, RETAIN)
    _, instead = examples(images, ANCHOR)
    loaded = [[Image.open(path) for path in paths] for paths in (forget, retain)]
    memory = unlearn(
        shipped_pipeline(), loaded[0], own, instead, loaded[1], kept, method=keys, learning_rate=1e-3, batch=3, steps=3
    )
    assert all(torch.equal(tensor, files.delta.tensors[name]) for name, tensor in memory.delta.tensors.items())


def test_a_run_that_diverges_returns_the_tensors_before_that_step(small_pipeline: Any) -> None:
    esd = methods()["esd"].model_copy(update={"learning_rate": 1e30})
    model = unlearn(small_pipeline, small_images(1), "A Cats image", "", method=esd, steps=4)
    assert model.diverged_at in (1, 2) and len(model.losses["loss"]) == model.diverged_at + 1
    assert all(tensor.isfinite().all() for tensor in model.delta.tensors.values())


def test_the_progress_bar_of_the_pipeline_shows_the_steps(
    small_pipeline: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (small_images(1), "A Cats image", "", small_images(1), "A Dogs image")
    unlearn(small_pipeline, *arguments, steps=2)
    assert "2/2" in capsys.readouterr().err
    small_pipeline.set_progress_bar_config(disable=True)
    unlearn(small_pipeline, *arguments, steps=2)
    assert capsys.readouterr().err == ""


WRONG_ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "method": ({"method": "corr"}, "method is 'corr', expected `core`, or else one of esd, salun"),
    "no images": ({"forget_images": []}, "forget_images is empty, expected at least one image"),
    "one image": ({"forget_images": Image.new("RGB", (9, 9))}, "forget_images is one image, expected a list"),
    "no image": ({"retain_images": [3]}, r"retain_images\[0\] is int, expected an image of Pillow or a path"),
    "prompts": ({"forget_prompts": ["a"]}, "forget_prompts has 1 prompts, expected 2, one for each image"),
    "no text": ({"anchor_prompts": ["a", None]}, r"anchor_prompts\[1\] is NoneType, expected a text"),
    "retain": ({"retain_images": ()}, "retain_images is empty, expected at least one image: the method needs them"),
    "anchors": ({"method": "ca_noise"}, "anchor_images has 0 images, expected 2: this method trains on images of"),
    "generated": ({"method": "ca_released"}, "anchor_images has 0 images, expected 2: .* the base model's images of"),
    "steps": ({"steps": 0}, "steps is 0: Input should be greater than 0"),
    "rate": ({"learning_rate": -1.0}, "learning_rate is -1.0: Input should be greater than 0"),
    "batch": ({"batch": 0}, "batch is 0: Input should be greater than 0"),
    "resolution": ({"resolution": 0}, "resolution is 0: Input should be greater than 0"),
    "a rate in quotes": ({"learning_rate": "1e-4"}, "learning_rate is '1e-4': "),
    "high rate": ({"learning_rate": 5.0}, "learning_rate is 5, expected a number below 1"),
    "odd resolution": ({"resolution": 33}, "resolution is 33, expected a multiple of 2"),
    "anchor": ({"anchor_prompts": "A Cats image"}, "anchor_prompts.0. is the forget prompt 'A Cats image' itself"),
    "no precision": ({"precision": "fp8"}, "precision is 'fp8': Input should be 'fp32' or 'bf16'"),
    "precision": ({"precision": "fp16"}, "small gradients are 0 in fp16"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG_ARGUMENTS.values(), ids=WRONG_ARGUMENTS)
def test_a_wrong_argument_is_an_error_before_anything_is_computed(
    changes: dict[str, Any], message: str, small_pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corelib.in_memory.unlearning.reproducible", None)
    arguments: dict[str, Any] = {
        "forget_images": small_images(2),
        "forget_prompts": "A Cats image",
        "anchor_prompts": "",
        "retain_images": small_images(1),
        "retain_prompts": "A Dogs image",
        "steps": 1,
    }
    with pytest.raises(ConfigurationError, match=message):
        unlearn(small_pipeline, **(arguments | changes))


def test_a_file_that_is_no_image_is_named_before_anything_is_computed(
    small_pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corelib.in_memory.unlearning.reproducible", None)
    (tmp_path / "text.jpg").write_text("text")
    with pytest.raises(AssetError, match=r"text\.jpg: not an image, expected a JPEG or PNG file"):
        unlearn(small_pipeline, [tmp_path / "text.jpg"], "A Cats image", "", method="esd", steps=1)


def test_an_image_in_memory_that_cannot_be_used_is_named(small_pipeline: Any) -> None:
    hidden = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    with pytest.raises(AssetError, match=r"forget_images\[1\]: it has transparent pixels, expected an opaque image"):
        unlearn(small_pipeline, [*small_images(1), hidden], "A Cats image", "", method="esd", steps=1)


def test_another_kind_of_pipeline_is_refused(small_pipeline: Any) -> None:
    class Other:
        vae, text_encoder, tokenizer = small_pipeline.vae, small_pipeline.text_encoder, small_pipeline.tokenizer
        unet, scheduler = small_pipeline.vae, small_pipeline.scheduler

    with pytest.raises(AssetError, match=r"pipeline\.unet is AutoencoderKL, expected UNet2DConditionModel"):
        unlearn(Other(), small_images(1), "A Cats image", "", method="esd", steps=1)


def test_only_the_noise_schedule_of_the_scheduler_counts(small_pipeline: Any) -> None:
    """Even for a method that samples its training images, whatever the sampler of the pipeline is."""
    ddim, deltas = small_pipeline.scheduler, []
    try:
        for kind in (type(ddim), PNDMScheduler, EulerDiscreteScheduler):
            small_pipeline.scheduler = kind.from_config(ddim.config)
            arguments = (small_pipeline, small_images(1), "A Cats image", "")
            deltas.append(unlearn(*arguments, method="esd_released", steps=1).delta.tensors)
    finally:
        small_pipeline.scheduler = ddim
    assert all(torch.equal(delta[name], tensor) for delta in deltas[1:] for name, tensor in deltas[0].items())


def test_a_schedule_without_betas_is_refused(small_pipeline: Any) -> None:
    ddim = small_pipeline.scheduler
    try:
        small_pipeline.scheduler = FlowMatchEulerDiscreteScheduler()
        with pytest.raises(AssetError, match=r"pipeline\.scheduler\.config: it lacks `beta_start`"):
            unlearn(small_pipeline, small_images(1), "A Cats image", "", method="esd", steps=1)
    finally:
        small_pipeline.scheduler = ddim


def test_an_adapter_in_the_network_is_refused(small_pipeline: Any) -> None:
    extra = torch.nn.Linear(1, 1)
    small_pipeline.unet.add_module("adapter", extra)
    try:
        with pytest.raises(
            AssetError, match=r"pipeline\.unet: not the weights of UNet2DConditionModel alone .*adapter"
        ):
            unlearn(small_pipeline, small_images(1), "A Cats image", "", method="esd", steps=1)
    finally:
        del small_pipeline.unet.adapter


def test_a_pipeline_that_does_not_predict_noise_is_refused(small_pipeline: Any) -> None:
    class Other:
        unet, vae = small_pipeline.unet, small_pipeline.vae
        text_encoder, tokenizer = small_pipeline.text_encoder, small_pipeline.tokenizer
        scheduler = type(small_pipeline.scheduler).from_config(
            small_pipeline.scheduler.config, prediction_type="v_prediction"
        )

    with pytest.raises(AssetError, match=r"pipeline\.scheduler\.config: `prediction_type` is v_prediction, expected"):
        unlearn(Other(), small_images(1), "A Cats image", "", method="esd", steps=1)
