"""Unlearned models of the user's own, in the forms in which public code saves them, as deltas.

A model is a diffusers folder of a U-Net, or a file of tensors: a delta of ours, a state dict with the names of
diffusers, or a checkpoint with those of CompVis. A file may contain the attention alone, as some baselines save it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from torch import Tensor

from corelib.errors import AssetError, listed, short_message
from corelib.files.hashing import sha256_of_path
from corelib.files.paths import resolve_links
from corelib.files.torch_files import read_plain_weights
from corelib.models.base_model import BaseModel
from corelib.models.delta import DELTA_FILE, DELTA_KEY, Delta, load_delta
from corelib.models.pipeline_parts import UNET, build_network, read_part
from corelib.models.state_dicts import as_state_dict, strip_prefix
from corelib.models.weight_checks import WeightsMismatch, check_finite, check_fit
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.given_models import WEIGHTS, GivenModelStage
from corelib.worlds.assets.compvis import TRAINING_OBJECTS, UNET_PREFIX, diffusers_unet_weights

log = logging.getLogger(__name__)

WRAPPERS = ("state_dict", "unet", "model", "model_state_dict")
"""Keys under which training scripts put a state dict."""

COMPVIS_BLOCK = "input_blocks."
"""Beginning of names of CompVis' U-Net, if they have no prefix."""

DATA_PARALLEL_PREFIX = "module."

PARTIAL_SETS: Mapping[str, tuple[str, ...]] = {
    "the cross-attention": ("attn2.",),
    "the keys and values of the cross-attention": ("attn2.to_k.", "attn2.to_v."),
    "the attention": ("attn1.", "attn2."),
}
"""Sets of tensors that may be alone in a file: the parts of their names. All other tensors are the base model's."""

IGNORED_SETTINGS = ("sample_size",)
"""Settings of a U-Net that do not change what it computes."""


def adopt_model(settings: GivenModelStage, context: StageContext) -> StageResult:
    """Stage: write a model of the user's as a delta of the base model.

    Raises `AssetError` if it is missing, is not the locked one, or does not fit the base model's U-Net.
    """
    path = resolve_links(context.folder / WEIGHTS)
    if not path.exists():
        raise AssetError(f"{path}: the weights are missing, expected the model of `models` in the study.")
    locked = settings.sha256[WEIGHTS]
    if (actual := sha256_of_path(path)) != locked:
        raise AssetError(
            f"{path} has the sha256 {actual[:12]}, expected {str(locked)[:12]} as locked; restore it, or lock the new "
            "one with `make assets`."
        )
    base = BaseModel(context.inputs["pipeline"])
    unet = base.unet()
    load_given_unet(path, unet, base.unet_sha256)
    Delta(dict(unet.named_parameters()), "all", base.unet_sha256, context.digest).save(context.folder / DELTA_FILE)
    return StageResult([DELTA_FILE], {"base": base.unet_sha256, "diverged_at": None})


def load_given_unet(path: Path, unet: UNet2DConditionModel, base: str | None) -> None:
    """Copy the user's weights into the base model's U-Net.

    Args:
        path: the folder or file.
        unet: the base model's U-Net.
        base: its sha256, with which a delta of ours must agree; None if it is not known.

    Raises `AssetError` or `ArtefactError` if the weights are not those of this network, or are not finite.
    """
    if base is not None and _is_delta(path):
        load_delta(path, unet, base)
        return
    tensors = given_tensors(path, unet)
    parameters = dict(unet.named_parameters())
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)


def check_given_model(path: Path, unet_folder: Path, values: bool) -> None:
    """Raise `AssetError` if `load_given_unet` would, without loading the base model.

    Args:
        path: the folder or file of the user's.
        unet_folder: the diffusers folder of the base model's U-Net.
        values: whether to read all values and check that they are finite.
    """
    if not _is_delta(path):
        given_tensors(path, build_network(UNET, unet_folder), values)


def given_tensors(path: Path, unet: UNet2DConditionModel, values: bool = True) -> dict[str, Tensor]:
    """The tensors of a model of the user's, by their names in diffusers: all of the U-Net, or one of `PARTIAL_SETS`.

    Args:
        path: the folder or file.
        unet: the base model's U-Net; its values are not read.
        values: whether to read all values and check that they are finite.

    Raises `AssetError`.
    """
    try:
        tensors = _from_folder(path, unet) if path.is_dir() else _from_file(path, unet)
        expected = unet.state_dict()
        if unknown := sorted(tensors.keys() - expected.keys()):
            raise WeightsMismatch(f"it has {len(unknown)} tensors that the U-Net does not have: {listed(unknown)}")
        wanted = expected if len(tensors) == len(expected) else _partial_set(path, tensors, expected)
        check_fit(tensors, wanted)
        if values:
            check_finite(tensors)
    except WeightsMismatch as error:
        raise AssetError(f"{path}: not the weights of the base model's U-Net ({error}).") from None
    return tensors


def _partial_set(path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the U-Net that a file has, if they are one of `PARTIAL_SETS`."""
    for words, parts in PARTIAL_SETS.items():
        chosen = {name: tensor for name, tensor in expected.items() if any(part in name for part in parts)}
        if chosen.keys() == tensors.keys():
            log.info("%s: it has %s alone; all other weights are the base model's", path, words)
            return chosen
    missing = sorted(expected.keys() - tensors.keys())
    raise WeightsMismatch(
        f"it lacks {len(missing)} of {len(expected)} tensors: {listed(missing)}; expected all of them, or all of "
        f"{', or of '.join(PARTIAL_SETS)}"
    )


def _is_delta(path: Path) -> bool:
    """Whether a file is a delta of ours."""
    if path.is_dir() or path.suffix != ".safetensors":
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return DELTA_KEY in (file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise AssetError(f"{path}: not readable as safetensors ({short_message(error)}).") from None


def _from_folder(path: Path, unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """The tensors of a diffusers folder: of a U-Net, or of a pipeline."""
    folder = path / "unet" if (path / "unet/config.json").exists() else path
    network, tensors = read_part(UNET, folder)
    ours, theirs = dict(unet.config), dict(network.config)
    for key in sorted(ours.keys() & theirs.keys()):
        is_setting = not key.startswith("_") and key not in IGNORED_SETTINGS
        if is_setting and _plain(ours[key]) != _plain(theirs[key]):
            raise WeightsMismatch(f"its `{key}` is {theirs[key]}, that of the base model {ours[key]}")
    return tensors


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _from_file(path: Path, unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """The tensors of a file, by their names in diffusers."""
    content = read_plain_weights(path, "the weights of a U-Net", TRAINING_OBJECTS, mapped=True)
    while isinstance(content, Mapping) and (wrapper := _wrapper_of(content)) is not None:
        content = content[wrapper]
    if isinstance(content, Mapping):  # what training scripts put beside the tensors is left out
        content = {name: tensor for name, tensor in content.items() if isinstance(tensor, Tensor)} or content
    tensors = strip_prefix(as_state_dict(content), DATA_PARALLEL_PREFIX)
    if any(name.startswith(UNET_PREFIX) for name in tensors):
        tensors = {name.removeprefix(UNET_PREFIX): tensors[name] for name in tensors if name.startswith(UNET_PREFIX)}
    if any(name.startswith(COMPVIS_BLOCK) for name in tensors):
        return diffusers_unet_weights(path, unet, tensors)
    return tensors


def _wrapper_of(content: Mapping[str, Any]) -> str | None:
    return next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
