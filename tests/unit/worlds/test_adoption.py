"""Weights that do not fit their network are detected on adoption, before anything is computed."""

from __future__ import annotations

import collections
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.checkout import REPOSITORY
from support.full_format import write_inception
from support.small_world import FP32, OBJECTS, STYLES, finish, make_classifier, make_images, make_pipeline
from torchvision.models import inception_v3

from corelib.data.embeddings import embed_prompts
from corelib.data.latents import encode_images
from corelib.errors import AssetError
from corelib.evaluation.classification import classify_images
from corelib.files.hashing import sha256_of_path
from corelib.maintenance.asset_provision import Provision
from corelib.models.classifier import ImageClassifier
from corelib.models.classifier_checkpoint import check_classifier
from corelib.models.device import Device
from corelib.models.inception import check_torchvision_inception
from corelib.models.model_inspection import inspect_resolution
from corelib.runs.checkpoint import restore_tensors
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext, StageResult
from corelib.sampling.grid import IMAGES, image_name
from corelib.settings.assets import AdoptionStage, ClassifierSpec
from corelib.settings.data import EmbeddingsStage, Encoding, LatentsStage
from corelib.settings.evaluation import Classification, PredictionsStage
from corelib.worlds.assets.adoption import adopt_assets, asset_faults
from corelib.worlds.assets.asset_lock import read_lock
from corelib.worlds.assets.image_index import RequiredImages

ARCHITECTURE = "test_resnet"
CLASSES = ["Amber", "Blue", "Cream"]


# Classifiers


def network(classes: int = len(CLASSES), architecture: str = ARCHITECTURE) -> torch.nn.Module:
    torch.manual_seed(2)
    return timm.create_model(architecture, num_classes=classes)


def weights() -> dict[str, torch.Tensor]:
    return network().state_dict()


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in weights().items()}


def with_tensors(**tensors: torch.Tensor) -> dict[str, Any]:
    return {"model_state_dict": weights() | {name.replace("__", "."): tensor for name, tensor in tensors.items()}}


NAN, INFINITY = float("nan"), float("inf")

UNDERSTOOD: dict[str, tuple[Callable[[], Any], str]] = {
    "the benchmark's form": (lambda: {"model_state_dict": weights()}, ""),
    "DataParallel": (
        lambda: {"model_state_dict": prefixed("module.")},
        "under `model_state_dict`.* removing `module.`",
    ),
    "torch.compile": (lambda: {"model_state_dict": prefixed("_orig_mod.")}, "removing `_orig_mod.`"),
    "both": (lambda: {"model_state_dict": prefixed("module._orig_mod.")}, "removing `module.` and `_orig_mod.`"),
    "under state_dict": (lambda: {"state_dict": weights(), "epoch": 3}, "under `state_dict`"),
    "under model": (lambda: {"model": weights()}, "under `model`"),
    "under ema": (lambda: {"ema": weights()}, "under `ema`"),
    "two names deep": (
        lambda: {"model": {"state_dict": prefixed("module.")}},
        "under `model` > `state_dict`.* removing",
    ),
    "alone": (weights, "at the top"),
    "an average that is no state dict": (lambda: {"model": weights(), "ema": {"decay": 0.999}}, "under `model`"),
    "what training leaves": (
        lambda: {"model_state_dict": weights(), "args": collections.defaultdict(list), "path": Path("x")},
        "",
    ),
    "fp16": (lambda: {"model_state_dict": {n: t.half() if t.ndim else t for n, t in weights().items()}}, ""),
    "without counters of steps": (
        lambda: {"model_state_dict": {n: t for n, t in weights().items() if "num_batches" not in n}},
        "",
    ),
}

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "another architecture": (
        lambda: {"model_state_dict": network(architecture="test_efficientnet").state_dict()},
        r"it lacks \d+ of \d+ tensors: .* belong to no part of the network",
    ),
    "another number of classes": (
        lambda: {"model_state_dict": network(4).state_dict()},
        r"the classifier has 4 classes, expected 3",
    ),
    "names of another wrapper": (
        lambda: {"model_state_dict": prefixed("backbone.")},
        r"it lacks \d+ of \d+ tensors: .*; \d+ of its tensors belong to no part of the network: backbone\.",
    ),
    "half of its names behind `module.`": (
        lambda: {"model_state_dict": {("module." if n < "fc" else "") + n: t for n, t in weights().items()}},
        r"it lacks \d+ of \d+ tensors",
    ),
    "two that fit": (
        lambda: {"model": weights(), "ema": prefixed("module.")},
        r"the weights under `model` and under `ema` all fit ResNet, expected a single set",
    ),
    "one missing": (
        lambda: {"model_state_dict": {n: t for n, t in weights().items() if n != "fc.weight"}},
        r"it lacks 1 of \d+ tensors: fc\.weight\)",
    ),
    "one too much": (lambda: with_tensors(extra=torch.zeros(2)), r"1 of its tensors belong to no part .*: extra\)"),
    "transposed": (
        lambda: with_tensors(fc__weight=network().fc.weight.detach().T),
        r"another shape: fc\.weight has \(\d+, 3\), expected \(3, \d+\)",
    ),
    "integers": (
        lambda: with_tensors(fc__weight=network().fc.weight.detach().to(torch.int8)),
        r"fc\.weight is int8, expected fp16, bf16, fp32 or fp64",
    ),
    "NaN in a weight": (
        lambda: with_tensors(fc__weight=torch.full_like(network().fc.weight.detach(), NAN)),
        r"1 of its tensors hold values that are not finite: fc\.weight\)",
    ),
    "an infinity in a bias": (
        lambda: with_tensors(fc__bias=torch.tensor([0.0, INFINITY, 0.0])),
        r"not finite: fc\.bias\)",
    ),
    "text beside its tensors": (
        lambda: {"model_state_dict": {**weights(), "note": "x"}},
        r"it has an entry that is not a named tensor: note\)",
    ),
    "an unknown nesting": (
        lambda: {"net": weights(), "epoch": 3},
        r"its entry `net` is a state dict, expected tensors; save that entry alone\)",
    ),
    "no tensors": (lambda: [1, 2], r"it is not a mapping of names to tensors\)"),
}


class LinkedAssets:
    """Assets as a job of the stage `assets` receives them: links in its folder, and their locked hashes."""

    def __init__(self, folder: Path, assets: dict[str, Path], unet: Any = None, **classifiers: list[str]) -> None:
        self.folder = folder
        folder.mkdir()
        for name, path in assets.items():
            top = name.split("/")[0]
            if not (folder / top).exists():
                (folder / top).symlink_to(path.parent if "/" in name else path)
        forms = {
            label: ClassifierSpec(architecture=ARCHITECTURE, resolution=16, classes=classes)
            for label, classes in classifiers.items()
        }
        sha256: dict[str, str | None] = {name: sha256_of_path(path) for name, path in assets.items()}
        self.settings = AdoptionStage(sha256=sha256, unet=unet, classifiers=forms)

    def faults(self, values: bool) -> list[str]:
        """Faults as preflight reports them (without values) or the job (with values)."""
        return list(asset_faults(self.settings, self.folder, values))

    def manifest(self) -> Manifest:
        outcome = adopt_assets(self.settings, StageContext(self.folder, "digest", {}))
        return finish(self.folder, "assets", outcome)


def style_classifier(content: Any, folder: Path) -> LinkedAssets:
    torch.save(content, folder / "style50.pth")
    return LinkedAssets(folder / "taken", {"style_classifier": folder / "style50.pth"}, style=CLASSES)


@pytest.mark.parametrize("how", UNDERSTOOD)
def test_the_weights_of_a_classifier_are_found_under_the_keys_of_training_scripts(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make, message = UNDERSTOOD[how]
    linked_assets = style_classifier(make(), tmp_path)
    assert linked_assets.faults(values=False) == linked_assets.faults(values=True) == []
    caplog.clear()
    with caplog.at_level("INFO"):
        classifier = ImageClassifier.of_run(linked_assets.manifest(), "style", Device(FP32, 1))
    image = Image.effect_noise((16, 16), 50).convert("RGB")
    expected = network().eval()(classifier.preprocess(image)[None]).softmax(dim=1)
    torch.testing.assert_close(classifier.probabilities([image]), expected.detach(), rtol=1e-2, atol=1e-3)
    assert re.search(message, caplog.text) if message else caplog.text == ""


@pytest.mark.parametrize("how", REFUSED)
def test_a_classifier_that_cannot_be_loaded_is_not_adopted(how: str, tmp_path: Path) -> None:
    make, message = REFUSED[how]
    linked_assets = style_classifier(make(), tmp_path)
    with pytest.raises(AssetError, match=rf"assets of the study: .*style50\.pth: .*{message}"):
        linked_assets.manifest()
    (fault,) = linked_assets.faults(values=True)
    assert "\n" not in fault
    assert linked_assets.faults(values=False) == ([] if "not finite" in message else [fault])


def test_the_fault_of_a_classifier_with_other_classes_names_the_key_that_lists_them(tmp_path: Path) -> None:
    linked_assets = style_classifier(REFUSED["another number of classes"][0](), tmp_path)
    (fault,) = linked_assets.faults(values=False)
    assert fault.endswith(
        "(the classifier has 4 classes, expected 3); in a study of your own images, list all 4 of them, in their "
        "order, under `world.classes.concept`"
    )


@pytest.mark.parametrize("how", REFUSED)
def test_the_loader_rejects_a_classifier_that_does_not_fit(how: str, tmp_path: Path) -> None:
    """A manifest may be older than the check, or come from another user."""
    make, message = REFUSED[how]
    manifest = make_classifier(tmp_path / "classifier", "style", CLASSES)
    torch.save(make(), manifest.folder / "classifier.pth")
    facts = {**manifest.facts["classifiers"]["style"], "sha256": sha256_of_path(manifest.folder / "classifier.pth")}
    manifest = finish(manifest.folder, "classifier", StageResult(["classifier.pth"], {"classifiers": {"style": facts}}))
    with pytest.raises(AssetError, match=rf"classifier\.pth: .*{message}"):
        ImageClassifier.of_run(manifest, "style", Device(FP32, 1))


@pytest.mark.parametrize(
    "architecture", ["hf-hub:somebody/something", "local-dir:/tmp", "no_such_network", "test_resnet.x"]
)
def test_an_architecture_that_timm_does_not_include_is_not_fetched(architecture: str, tmp_path: Path) -> None:
    torch.save({"model_state_dict": weights()}, tmp_path / "style50.pth")
    with pytest.raises(AssetError, match=rf"^the classifier's architecture is {architecture}, .*timm "):
        check_classifier(tmp_path / "style50.pth", architecture, len(CLASSES), values=False)


def test_probabilities_that_are_not_finite_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finite weights may still produce non-finite results."""
    grid = [["Amber", "Cats", seed] for seed in (1, 2, 3)]
    (tmp_path / "samples" / IMAGES).mkdir(parents=True)
    for image in grid:
        Image.effect_noise((16, 16), 50).convert("RGB").save(tmp_path / "samples" / IMAGES / image_name(*image))
    facts = {"grid": grid, "flagged": [], "diverged_at": None}
    inputs = {
        "samples": finish(tmp_path / "samples", "samples", StageResult([IMAGES], facts)),
        "style_classifier": make_classifier(tmp_path / "style", "style", STYLES),
        "object_classifier": make_classifier(tmp_path / "object", "object", OBJECTS),
    }
    (tmp_path / "predictions").mkdir()
    settings = PredictionsStage(classification=Classification(batch=2))
    work = StageContext(tmp_path / "predictions", "digest", inputs)
    answers = ImageClassifier.probabilities

    def with_a_nan(self: ImageClassifier, images: list[Image.Image]) -> torch.Tensor:
        probabilities = answers(self, images)
        if len(images) == 1 and len(self.classes) == len(OBJECTS):  # of the second batch
            probabilities[0, 1] = NAN
        return probabilities

    classify_images(settings, work)
    monkeypatch.setattr(ImageClassifier, "probabilities", with_a_nan)
    message = r"Amber_Cats_seed3\.jpg: the object classifier's probabilities are not finite"
    with pytest.raises(AssetError, match=message):
        classify_images(settings, work)


# All assets


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline, classifiers and Inception networks of random weights."""
    folder = tmp_path_factory.mktemp("assets")
    shutil.copytree(make_pipeline(folder / "made").folder / "pipeline", folder / "pipeline")
    torch.save({"model_state_dict": weights()}, folder / "style50.pth")
    write_inception(folder / "inception.pt")
    torch.save(inception_v3(weights=None, init_weights=False).state_dict(), folder / "inception_v3.pth")
    return folder


NAMES = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


FILES = {
    **{f"pipeline/{part}": f"pipeline/{part}" for part in NAMES},
    "style_classifier": "style50.pth",
    "inception": "inception.pt",
    "inception_torchvision": "inception_v3.pth",
}


def link_all_assets(folder: Path, where: Path) -> LinkedAssets:
    paths = {name: folder / file for name, file in FILES.items() if (folder / file).exists()}
    return LinkedAssets(where, paths, "unet", style=CLASSES)


Change = Callable[[dict[str, torch.Tensor]], None]


def edit(path: Path, change: Change) -> None:
    """Change the tensors of a file."""
    if path.suffix == ".safetensors":
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)
    else:
        content = torch.load(path, weights_only=True)
        change(content.get("model_state_dict", content))
        torch.save(content, path)


def poison(name: str) -> Change:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = torch.full_like(tensors[name], NAN)

    return change


def remove(*names: str) -> Change:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in names:
            del tensors[name]

    return change


def wrap(tensors: dict[str, torch.Tensor]) -> None:
    for name in list(tensors):
        tensors[f"module.{name}"] = tensors.pop(name)


def configure(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


class Poisoned(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Linear(2, 2)
        torch.nn.init.constant_(self.layers.weight, NAN)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


WEIGHTS = "diffusion_pytorch_model.safetensors"
DAMAGE: dict[str, tuple[Callable[[Path], None], str, bool]] = {
    "U-Net lacks a tensor": (
        lambda f: edit(f / "pipeline/unet" / WEIGHTS, remove("conv_in.bias")),
        r"unet: not loadable as UNet2DConditionModel \(it lacks 1 of \d+ tensors: conv_in\.bias\)",
        True,
    ),
    "autoencoder without quant_conv": (
        lambda f: edit(f / "pipeline/vae" / WEIGHTS, remove("quant_conv.weight", "quant_conv.bias")),
        r"vae: not loadable as AutoencoderKL \(it lacks 2 of \d+ tensors: quant_conv\.weight, quant_conv\.bias\)",
        True,
    ),
    "text encoder behind module.": (
        lambda f: edit(f / "pipeline/text_encoder/model.safetensors", wrap),
        r"text_encoder: not loadable as CLIPTextModel \(it lacks \d+ of \d+ tensors: ",
        True,
    ),
    "attention of a package": (
        lambda f: configure(f / "pipeline/text_encoder/config.json", _attn_implementation="org/kernel:fn"),
        r"text_encoder/config\.json: `_attn_implementation` is 'org/kernel:fn'",
        True,
    ),
    "tokenizer of a longer vocabulary": (
        lambda f: configure(f / "pipeline/tokenizer/tokenizer_config.json", model_max_length=77),
        r"tokenizer: its prompts have 77 tokens, but \S+text_encoder takes at most 12",
        True,
    ),
    "noise schedule of another class": (
        lambda f: configure(f / "pipeline/scheduler/scheduler_config.json", _class_name="Other"),
        r"scheduler_config\.json: it configures 'Other', expected DDIMScheduler",
        True,
    ),
    "NaN in the U-Net": (
        lambda f: edit(f / "pipeline/unet" / WEIGHTS, poison("conv_in.weight")),
        r"unet: not loadable as UNet2DConditionModel \(1 of its tensors hold values that are not finite: conv_in\.wei",
        False,
    ),
    "NaN in torchvision's Inception": (
        lambda f: edit(f / "inception_v3.pth", poison("fc.weight")),
        r"inception_v3\.pth: not loadable as torchvision's Inception v3 \(1 of .* not finite: fc\.weight\)",
        False,
    ),
    "torchvision's Inception lacks a tensor": (
        lambda f: edit(f / "inception_v3.pth", remove("fc.bias")),
        r"inception_v3\.pth: not loadable as torchvision's Inception v3 \(it lacks 1 of \d+ tensors: fc\.bias\)",
        True,
    ),
    "NaN in clean-fid's Inception": (
        lambda f: torch.jit.script(Poisoned()).save(f / "inception.pt"),
        r"inception\.pt: not (loadable|usable) as .* hold values that are not finite",
        False,
    ),
    "clean-fid's Inception is no program": (
        lambda f: shutil.copy(f / "style50.pth", f / "inception.pt") and None,
        r"inception\.pt: not (loadable|usable) as TorchScript",
        True,
    ),
    "NaN in a classifier": (
        lambda f: edit(f / "style50.pth", poison("fc.weight")),
        r"style50\.pth: not the weights of ResNet \(1 of its tensors hold values that are not finite: fc\.weight\)",
        False,
    ),
}
"""Damage to the assets, the expected message, and whether it is detected without reading values."""


def test_complete_assets_are_adopted(assets: Path, tmp_path: Path) -> None:
    check_torchvision_inception(assets / "inception_v3.pth", values=True)
    ignored = shutil.ignore_patterns("made", "inception_v3.pth")
    folder = Path(shutil.copytree(assets, tmp_path / "assets", ignore=ignored))
    linked_assets = link_all_assets(folder, tmp_path / "taken")
    assert linked_assets.faults(values=False) == linked_assets.faults(values=True) == []
    make_assets(folder, tmp_path)


@pytest.mark.parametrize("how", DAMAGE)
def test_assets_that_do_not_fit_are_detected_by_every_check(how: str, assets: Path, tmp_path: Path) -> None:
    damage, message, without_values = DAMAGE[how]
    folder = Path(shutil.copytree(assets, tmp_path / "assets", ignore=shutil.ignore_patterns("made")))
    if "torchvision" not in how:  # it has a hundred megabytes
        (folder / "inception_v3.pth").unlink()
    damage(folder)
    linked_assets = link_all_assets(folder, tmp_path / "taken")
    with pytest.raises(AssetError, match=message):
        linked_assets.manifest()
    assert len(linked_assets.faults(values=True)) == 1
    assert len(linked_assets.faults(values=False)) == without_values
    with pytest.raises(AssetError, match=message):
        make_assets(folder, tmp_path)
    unlocked = len(linked_assets.settings.sha256) - len(read_lock(tmp_path / "config").assets)
    assert unlocked == (0 if "takes at most" in message else 1), "mismatched parts are valid on their own"


def make_assets(folder: Path, tmp_path: Path, names: Sequence[str] = ()) -> None:
    """Run `make assets` on these files, or on all existing ones; it inspects every asset that it locks."""
    configuration = tmp_path / "config"
    configuration.mkdir()
    shutil.copy(REPOSITORY / "config/assets.yaml", configuration)
    names = names or [name for name, file in FILES.items() if (folder / file).exists()]
    places = {name.split("/")[0]: str(folder / FILES[name].split("/")[0]) for name in names}
    forms = {"style": ClassifierSpec(architecture=ARCHITECTURE, resolution=16, classes=CLASSES)}
    settings = AdoptionStage(sha256=dict.fromkeys(names), unet="unet", classifiers=forms)
    lines: list[str] = []
    provision = Provision(
        (settings, places), RequiredImages([], [], 1), configuration, "Seed_Images", "raw", lines.append
    )
    provision.make(again=False)
    assert len(read_lock(configuration).assets) == len(names)
    provision.make(again=False)


# Non-finite results of finite weights


def make_overflowing_pipeline(folder: Path, part: str, file: str, tensor: str) -> Manifest:
    """A pipeline in which one tensor is so large that results computed with it are infinite."""
    manifest = make_pipeline(folder)
    weights = manifest.folder / "pipeline" / part / file
    tensors = load_file(weights)
    tensors[tensor] = torch.full_like(tensors[tensor], 3e38)
    save_file(tensors, weights)
    facts = {**manifest.facts, "parts": {**manifest.facts["parts"], part: sha256_of_path(weights.parent)}}
    return finish(manifest.folder, "pipeline", StageResult(["pipeline"], facts))


def test_an_embedding_that_is_not_finite_is_named_with_its_prompt(tmp_path: Path) -> None:
    pipeline = make_overflowing_pipeline(
        tmp_path / "pipeline", "text_encoder", "model.safetensors", "final_layer_norm.weight"
    )
    work = StageContext(tmp_path, "digest", {"pipeline": pipeline})
    with pytest.raises(AssetError, match="the prompt 'A Cats image' has an embedding that is not finite"):
        embed_prompts(EmbeddingsStage(prompts=["A Cats image", "A Dogs image"]), work)
    assert not (tmp_path / "embeddings.safetensors").exists()


def test_a_latent_that_is_not_finite_is_named_with_its_image(tmp_path: Path) -> None:
    pipeline = make_overflowing_pipeline(tmp_path / "pipeline", "vae", WEIGHTS, "quant_conv.weight")
    images = make_images(tmp_path / "images")
    encoding = Encoding(resolution=16, interpolation="bicubic", batch=2)
    settings = LatentsStage(styles=["Blue"], objects=["Cats"], images=[1, 2, 3], encoding=encoding)
    work = StageContext(tmp_path, "digest", {"pipeline": pipeline, "images": images})
    with pytest.raises(AssetError, match=r"Blue/Cats/1\.jpg: its latent is not finite"):
        encode_images(settings, work)
    assert not (tmp_path / "moments.safetensors").exists()


@pytest.mark.parametrize("tensor", [torch.zeros(3, 2), torch.zeros(6), torch.zeros(2, 3, dtype=torch.int64), None])
def test_a_saved_state_is_restored_exactly_or_not_at_all(tensor: torch.Tensor | None) -> None:
    """A tensor with the same number of values but another shape is rejected."""
    parameters = {"a": torch.ones(2, 3), "b": torch.ones(1)}
    state = {"a": tensor, "b": torch.zeros(1)} if tensor is not None else {"b": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"^a is "):
        restore_tensors(parameters, state)
    restore_tensors(parameters, {"a": torch.full((2, 3), 7.0), "b": torch.zeros(1)})
    assert torch.equal(parameters["a"], torch.full((2, 3), 7.0))


def test_a_size_that_a_classifier_refuses_is_detected_before_its_jobs() -> None:
    with pytest.raises(
        AssetError, match=r"^world\.assets\.classifier_resolution is 160, which vit_tiny_.* \(.*224.*\);"
    ):
        inspect_resolution("vit_tiny_patch16_224", 160)
    inspect_resolution("vit_tiny_patch16_224", 224)
    inspect_resolution(ARCHITECTURE, 16)
