"""The base model from a CompVis file: names and shapes of the public one, the same network, and no code executed."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkout import REPOSITORY
from support.full_format import (
    FULL,
    REDUCED,
    build_autoencoder,
    build_text_encoder,
    build_unet,
    compvis_state_dict,
    write_diffusers_folder,
    write_lightning,
)
from support.hand_made import write_manifest

from corelib.errors import AssetError
from corelib.files.hashing import sha256_of_path
from corelib.models.base_model import BaseModel
from corelib.runs.manifest import Manifest, read_manifest
from corelib.runs.stage_context import StageContext
from corelib.settings.assets import ConversionStage
from corelib.worlds.assets.compvis import check_compvis, convert_compvis, read_checkpoint

LISTING = REPOSITORY / "tests/listings/compvis-v1.txt"
PARTS = ("unet", "unet_ema", "vae", "text_encoder", "tokenizer", "scheduler")


def public_tensors() -> dict[str, tuple[int, ...]]:
    lines = [line.rsplit(" ", 1) for line in LISTING.read_text().splitlines() if not line.startswith("#")]
    return {name: tuple(int(size) for size in shape.strip("[]").split(",") if size) for name, shape in lines}


def test_a_full_compvis_file_has_the_public_models_names_and_shapes() -> None:
    with torch.device("meta"):
        unet, autoencoder, text_encoder = build_unet(FULL), build_autoencoder(FULL), build_text_encoder(FULL)
        written = compvis_state_dict(unet, build_unet(FULL), autoencoder, text_encoder)
    shapes = {name: tuple(tensor.shape) for name, tensor in written.items()}
    public = public_tensors()
    assert {name: shapes[name] for name in public} == public
    assert len(public) == 686 + 686 + 248 + 197
    assert len(shapes) - len(public) == 14


def test_the_networks_at_full_width_have_the_size_of_the_public_ones() -> None:
    with torch.device("meta"):
        networks: list[Any] = [build_unet(FULL), build_autoencoder(FULL), build_text_encoder(FULL)]
    assert [(network.num_parameters(), len(network.state_dict())) for network in networks] == [
        (859_520_964, 686),
        (83_653_863, 248),
        (123_060_480, 196),
    ]
    trained = [tensor for name, tensor in networks[0].state_dict().items() if "attn2" in name]
    assert (sum(tensor.numel() for tensor in trained), len(trained)) == (43_962_560, 80)  # Appendix B


class World:
    """Assets of reduced width, with a CompVis file whose four networks differ from those of the diffusers folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        torch.manual_seed(0)
        with torch.no_grad():
            write_diffusers_folder(
                folder / "pipeline", build_unet(REDUCED), build_autoencoder(REDUCED), build_text_encoder(REDUCED)
            )
            self.unet, self.average = build_unet(REDUCED), build_unet(REDUCED)
            self.autoencoder, self.text_encoder = build_autoencoder(REDUCED), build_text_encoder(REDUCED)
        self.weights = compvis_state_dict(self.unet, self.average, self.autoencoder, self.text_encoder)
        write_lightning(self.checkpoint, self.weights)

    @property
    def checkpoint(self) -> Path:
        return self.folder / "compvis.ckpt"

    def manifest(self) -> Manifest:
        facts = {
            "pipeline": "pipeline",
            "parts": {part: sha256_of_path(self.folder / "pipeline" / part) for part in PARTS},
            "compvis": {"weights": self.checkpoint.name, "sha256": sha256_of_path(self.checkpoint)},
        }
        path = self.folder / "manifest.json"
        write_manifest(path, self.folder, "assets", "assets", [], facts)
        return read_manifest(path)

    def convert(self, folder: Path, weights: Any) -> BaseModel:
        work = StageContext(folder=folder, digest="x", inputs={"pipeline": self.manifest(), "compvis": self.manifest()})
        outcome = convert_compvis(ConversionStage(weights=weights), work)
        path = folder / "manifest.json"
        write_manifest(path, folder, "pipeline", "x", outcome.files, outcome.facts)
        return BaseModel(read_manifest(path))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("compvis"))


def is_equal(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    mine, theirs = first.state_dict(), second.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_conversion_gives_the_networks_that_were_written(world: World, tmp_path: Path, weights: str) -> None:
    base = world.convert(tmp_path, weights)
    assert is_equal(base.unet(), world.unet if weights == "raw" else world.average)
    assert is_equal(base.autoencoder(), world.autoencoder)
    assert is_equal(base.text_encoder(), world.text_encoder)
    assert len(base.tokenizer()) == 49408
    assert base.scheduler().config["beta_start"] == 0.00085


def test_equal_files_convert_to_equal_bytes(world: World, tmp_path: Path) -> None:
    for name in ("first", "second"):
        world.convert(tmp_path / name, "raw")
    assert sha256_of_path(tmp_path / "first/pipeline") == sha256_of_path(tmp_path / "second/pipeline")


def test_objects_that_training_saves_beside_the_weights_are_not_instantiated(world: World) -> None:
    assert read_checkpoint(world.checkpoint).keys() == world.weights.keys()


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("place", ["value", "inside"])
def test_a_file_that_would_execute_something_is_refused_and_executes_nothing(tmp_path: Path, place: str) -> None:
    marker, path = tmp_path / "executed", tmp_path / "evil.ckpt"
    weights = {"model.diffusion_model.x": torch.zeros(1)}
    evil = Malicious(marker)
    torch.save({"state_dict": weights, "callbacks": evil if place == "value" else {"a": [evil]}}, path)
    with pytest.raises(AssetError, match=r"evil\.ckpt.*(mkdir|posix)"):
        read_checkpoint(path)
    assert not marker.exists()


def test_a_plain_pickle_is_refused(tmp_path: Path) -> None:
    marker, path = tmp_path / "executed", tmp_path / "plain.ckpt"
    path.write_bytes(pickle.dumps(Malicious(marker)))
    with pytest.raises(AssetError, match=r"plain\.ckpt: not loadable as plain weights"):
        read_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize("keep", [0, 4, 1000, 0.5])
def test_a_truncated_file_is_reported_in_one_sentence(world: World, tmp_path: Path, keep: float) -> None:
    path, content = tmp_path / "cut.ckpt", world.checkpoint.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(AssetError, match=r"cut\.ckpt: not loadable as plain weights"):
        read_checkpoint(path)


def test_a_file_that_is_not_a_checkpoint_is_reported_in_one_sentence(tmp_path: Path) -> None:
    torch.save({"model_state_dict": {"head.weight": torch.zeros(2)}}, tmp_path / "classifier.pth")
    with pytest.raises(AssetError, match=r"no tensor's name starts with `model\.diffusion_model\.`"):
        read_checkpoint(tmp_path / "classifier.pth")
    with pytest.raises(AssetError, match="the file is missing"):
        read_checkpoint(tmp_path / "none.ckpt")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("drop raw", r"model\.diffusion_model\.\* are not .* \(it lacks 1 of 686 tensors: down_blocks\.0"),
        ("drop average", r"lacks 1 of 686 averaged tensors, such as model_ema\.diffusion_modelinput_blocks11"),
        ("one more", r"has 687 tensors, expected the 686"),
        ("shape", r"1 of its tensors have another shape: down_blocks\.0\S* has \(3,\), expected \(32, 32\)"),
        ("drop vae", r"first_stage_model\.\* are not .* \(it lacks 1 of 248 tensors: quant_conv\.weight\)"),
        ("drop clip", r"text_model\.\* are not .* \(it lacks 1 of \d+ tensors: \S*final_layer_norm\.bias\)"),
        (
            "drop upsampling",
            r"first_stage_model\.\* are not .* \(diffusers cannot rename them: .*up\.2\.upsample\.conv\.bias",
        ),
        ("NaN", r"1 of its tensors hold values that are not finite: down_blocks\.0"),
        ("integers", r"1 of its tensors hold another kind of number: down_blocks\.0\S* is int8, expected fp16"),
    ],
)
def test_a_checkpoint_whose_tensors_do_not_fit_is_refused(
    tmp_path: Path, world: World, change: str, expected: str
) -> None:
    key = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    weights = dict(world.weights)
    match change:
        case "drop raw":
            del weights["model.diffusion_model." + key]
        case "drop average":
            del weights["model_ema.diffusion_model" + key.replace(".", "")]
        case "one more":
            weights["model.diffusion_model.label_emb.0.0.weight"] = torch.zeros(1)
        case "shape":
            weights["model.diffusion_model." + key] = torch.zeros(3)
        case "drop upsampling":
            del weights["first_stage_model.decoder.up.2.upsample.conv.bias"]
        case "NaN":
            weights["model.diffusion_model." + key] = torch.full((32, 32), float("nan"))
        case "integers":
            weights["model.diffusion_model." + key] = torch.ones(32, 32, dtype=torch.int8)
        case "drop vae":
            del weights["first_stage_model.quant_conv.weight"]
        case "drop clip":
            del weights["cond_stage_model.transformer.text_model.final_layer_norm.bias"]
    other = World.__new__(World)
    other.folder = tmp_path
    (tmp_path / "pipeline").symlink_to(world.folder / "pipeline")
    write_lightning(other.checkpoint, weights)
    with pytest.raises(AssetError, match=expected):
        other.convert(tmp_path / "converted", "ema" if change == "drop average" else "raw")
    assert not (tmp_path / "converted/pipeline").exists()


@pytest.mark.parametrize("change", ["drop vae", "drop average"])
def test_weights_that_do_not_fit_are_detected_before_the_conversion(tmp_path: Path, world: World, change: str) -> None:
    weights = dict(world.weights)
    missing = {
        "drop vae": "first_stage_model.quant_conv.weight",
        "drop average": "model_ema.diffusion_modelinput_blocks11transformer_blocks0attn2to_kweight",
    }[change]
    del weights[missing]
    write_lightning(tmp_path / "compvis.ckpt", weights)
    with pytest.raises(AssetError, match=r"compvis\.ckpt: .*lacks"):
        check_compvis(tmp_path / "compvis.ckpt", world.folder / "pipeline", "ema", values=False)
    check_compvis(world.checkpoint, world.folder / "pipeline", "ema", values=True)


def test_values_that_are_not_finite_are_detected_without_the_networks(tmp_path: Path, world: World) -> None:
    """The networks are not available where a checkpoint is adopted."""
    weights = {name: tensor.clone() for name, tensor in world.weights.items()}
    weights["log_one_minus_alphas_cumprod"].fill_(float("-inf"))  # the noise schedule is not read
    write_lightning(tmp_path / "compvis.ckpt", weights)
    check_compvis(tmp_path / "compvis.ckpt", None, None, values=True)
    weights["first_stage_model.quant_conv.bias"][0] = float("inf")
    write_lightning(tmp_path / "compvis.ckpt", weights)
    with pytest.raises(AssetError, match=r"not finite: first_stage_model\.quant_conv\.bias"):
        check_compvis(tmp_path / "compvis.ckpt", None, None, values=True)
