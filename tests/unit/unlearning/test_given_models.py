"""Models of the user's own: the forms in which public code saves them, and the faults that are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file
from support.full_format import REDUCED, build_unet, compvis_unet_name
from torch import Tensor

from corelib.errors import AssetError
from corelib.models.delta import Delta
from corelib.models.trained_parameters import trained_parameters
from corelib.unlearning.given_model import check_given_model, load_given_unet

CONFIG = {
    "sample_size": 8,
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 16,
    "attention_head_dim": 4,
    "layers_per_block": 1,
    "norm_num_groups": 8,
}


def unet(seed: int, **changes: object) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(**{**CONFIG, **changes})


BASE, MINE = unet(0), unet(1)
STATE: dict[str, Tensor] = {name: tensor.detach().clone() for name, tensor in MINE.state_dict().items()}


def chosen(*parts: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in STATE.items() if any(part in name for part in parts)}


def folder(path: Path) -> Path:
    MINE.save_pretrained(path / "unet")
    return path / "unet"


def pipeline_folder(path: Path) -> Path:
    return folder(path).parent


def safetensors(path: Path) -> Path:
    save_file(STATE, path / "mine.safetensors")
    return path / "mine.safetensors"


def pickled(content: object) -> Callable[[Path], Path]:
    def save(path: Path) -> Path:
        torch.save(content, path / "mine.pt")
        return path / "mine.pt"

    return save


FORMS: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "a folder of a U-Net": (folder, ("",)),
    "a folder of a pipeline": (pipeline_folder, ("",)),
    "safetensors": (safetensors, ("",)),
    "a state dict": (pickled(STATE), ("",)),
    "a nested state dict with counters": (pickled({"state_dict": STATE, "epoch": 3}), ("",)),
    "names of DataParallel": (pickled({f"module.{name}": tensor for name, tensor in STATE.items()}), ("",)),
    "the cross-attention alone": (pickled(chosen("attn2.")), ("attn2.",)),
    "keys and values alone": (pickled(chosen("attn2.to_k.", "attn2.to_v.")), ("attn2.to_k.", "attn2.to_v.")),
    "the attention alone": (pickled({"unet": chosen("attn1.", "attn2.")}), ("attn1.", "attn2.")),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_model_is_read_in_the_forms_in_which_public_code_saves_it(form: str, tmp_path: Path) -> None:
    save, parts = FORMS[form]
    path, network = save(tmp_path), unet(0)
    check_given_model(path, _saved_base(tmp_path), values=True)
    load_given_unet(path, network, None)
    for name, tensor in network.state_dict().items():
        given = any(part in name for part in parts)
        assert torch.equal(tensor, STATE[name] if given else BASE.state_dict()[name]), name


def _saved_base(path: Path) -> Path:
    BASE.save_pretrained(path / "base/unet")
    return path / "base/unet"


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_names_of_compvis_are_understood(prefix: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    theirs, ours = build_unet(REDUCED), build_unet(REDUCED)
    renamed = {prefix + compvis_unet_name(name): tensor for name, tensor in theirs.state_dict().items()}
    path = pickled({"state_dict": {**renamed, "first_stage_model.x": torch.zeros(1)} if prefix else renamed})(tmp_path)
    load_given_unet(path, ours, None)
    expected = theirs.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.state_dict().items())


def test_a_delta_of_ours_is_loaded_into_its_base_model_only(tmp_path: Path) -> None:
    path = tmp_path / "delta.safetensors"
    Delta(trained_parameters(MINE, "cross_attention"), "cross_attention", "b" * 64, "r" * 64).save(path)
    network = unet(0)
    load_given_unet(path, network, "b" * 64)
    assert torch.equal(
        dict(network.named_parameters())["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"],
        STATE["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"],
    )
    with pytest.raises(Exception, match="the delta belongs to the base model bbbb"):
        load_given_unet(path, unet(0), "c" * 64)


def without(*names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in STATE.items() if name not in names}


FAULTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a tensor is missing": (pickled(without("conv_in.bias")), "it lacks 1 of"),
    "a tensor too many": (pickled({**STATE, "other.weight": torch.zeros(2)}), "tensors that the U-Net does not have"),
    "another shape": (pickled({**STATE, "conv_in.bias": torch.zeros(3)}), "conv_in.bias"),
    "not a number": (pickled({**STATE, "conv_in.bias": torch.full((32,), torch.nan)}), "conv_in.bias"),
    "no tensors": (pickled({"epoch": 3}), "an entry that is not a named tensor: epoch"),
    "an unknown nesting": (pickled({"net": STATE, "epoch": 3}), "its entry `net` is a state dict, expected tensors"),
    "not a mapping": (pickled([1, 2]), "not a mapping"),
    "half of the cross-attention": (pickled(chosen("down_blocks.0.attentions.0.transformer_blocks.0.attn2.")), "lacks"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_that_do_not_fit_are_refused_in_one_sentence(fault: str, tmp_path: Path) -> None:
    save, words = FAULTS[fault]
    path = save(tmp_path)
    for attempt in (
        lambda: load_given_unet(path, unet(0), None),
        lambda: check_given_model(path, _saved_base(tmp_path), values=True),
    ):
        with pytest.raises(AssetError) as caught:
            attempt()
        assert str(path) in str(caught.value) and words in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_that_computes_something_else_with_the_same_shapes_is_refused(tmp_path: Path) -> None:
    unet(1, attention_head_dim=8).save_pretrained(tmp_path / "unet")
    with pytest.raises(AssetError, match="its `attention_head_dim` is 8, that of the base model 4"):
        load_given_unet(tmp_path / "unet", unet(0), None)
    shutil.rmtree(tmp_path / "unet")
    unet(1, sample_size=16).save_pretrained(tmp_path / "unet")
    load_given_unet(tmp_path / "unet", unet(0), None)
