"""Deltas: the trained cross-attention tensors of an unlearned model, apart from the base model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from corelib.errors import ArtefactError, AssetError, reason_of
from corelib.files.atomic import written_whole
from corelib.models.state_dicts import UnfitWeights, check_fit
from corelib.settings.trainable import Trained

DELTA = "delta.safetensors"

DELTA_FORMAT = "corelib delta 2"

CROSS_ATTENTION = "attn2"
"""What diffusers calls the cross-attention of a transformer block."""

TRAINED: Mapping[Trained, tuple[str, ...]] = {
    "cross_attention": (f"{CROSS_ATTENTION}.",),
    "keys_and_values": (f"{CROSS_ATTENTION}.to_k.", f"{CROSS_ATTENTION}.to_v."),
}
"""Parts of the names of the tensors that are trained."""


def trained_tensors(unet: UNet2DConditionModel, trained: Trained) -> dict[str, torch.nn.Parameter]:
    """The parameters that are trained, by name, in a fixed order: those with `attn2` in their name, or a part of them.

    Raises `AssetError` if the U-Net has none.
    """
    found = {
        name: parameter
        for name, parameter in sorted(unet.named_parameters())
        if any(part in name for part in TRAINED[trained])
    }
    if not found:
        raise AssetError("the U-Net has no cross-attention: no parameter has `attn2` in its name.")
    return found


def save_delta(path: Path, tensors: Mapping[str, Tensor], trained: Trained, base: str, run: str) -> None:
    """Write the trained tensors with the identity of the base model they belong to."""
    kept = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in tensors.items()}
    with written_whole(path) as temporary:
        # One entry of metadata: safetensors writes several in a random order, and equal deltas must be equal files.
        header = json.dumps({"format": DELTA_FORMAT, "base": base, "run": run, "trained": trained}, sort_keys=True)
        save_file(kept, temporary, metadata={"delta": header})


def load_delta(path: Path, unet: UNet2DConditionModel, base: str) -> None:
    """Put a delta's tensors into the U-Net it was trained from.

    Raises `ArtefactError` if the file is damaged, was made for another base model, or names other tensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = _header(path, file.metadata())
            if header["base"] != base:
                raise ArtefactError(
                    f"{path}: made for the base model {header['base'][:12]}, "
                    f"but the base model here is {base[:12]}, expected the same."
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    except (SafetensorError, OSError) as error:
        raise ArtefactError(
            f"{path}: the delta is damaged ({reason_of(error)}); delete it and ask for the target again."
        ) from None
    trained = trained_tensors(unet, header["trained"])
    if differing := sorted(trained.keys() ^ tensors.keys()):
        raise ArtefactError(
            f"{path}: its tensors are not the cross-attention's; the first that differs: {differing[0]}."
        )
    try:
        check_fit(tensors, trained)
    except UnfitWeights as error:
        raise ArtefactError(f"{path}: not a delta of this U-Net ({error}).") from None
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[name])


def _header(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads((metadata or {})["delta"])
        known = header["format"] == DELTA_FORMAT and isinstance(header["base"], str) and header["trained"] in TRAINED
    except (KeyError, TypeError, ValueError):
        known = False
    if not known:
        raise ArtefactError(f"{path}: not a delta, expected the format {DELTA_FORMAT!r} in its header.")
    return header
