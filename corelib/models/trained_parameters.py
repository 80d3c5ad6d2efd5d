"""The parameters of a U-Net that unlearning trains."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from corelib.errors import AssetError
from corelib.settings.trainable import DeltaTensors

CROSS_ATTENTION = "attn2"
"""Name of the cross-attention in the transformer blocks of diffusers."""

TRAINED_NAME_PARTS: Mapping[DeltaTensors, tuple[str, ...]] = {
    "cross_attention": (f"{CROSS_ATTENTION}.",),
    "keys_and_values": (f"{CROSS_ATTENTION}.to_k.", f"{CROSS_ATTENTION}.to_v."),
    "all": ("",),
}
"""Substrings that identify the names of the trained tensors."""


def trained_parameters(unet: UNet2DConditionModel, trained: DeltaTensors) -> dict[str, torch.nn.Parameter]:
    """The trained parameters by name, sorted: those with `attn2` in their name, or a subset of them.

    Raises `AssetError` if the U-Net has none.
    """
    parameters = {
        name: parameter
        for name, parameter in sorted(unet.named_parameters())
        if any(part in name for part in TRAINED_NAME_PARTS[trained])
    }
    if not parameters:
        raise AssetError("the U-Net has no cross-attention: no parameter has `attn2` in its name.")
    return parameters
