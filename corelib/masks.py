"""Saliency masks as training uses them; apart from how they are found, which other methods do not depend on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors.torch import load_file
from torch import Tensor

from corelib.artefacts import Manifest

MASKS = "mask.safetensors"


def load_masks(saliency: Manifest | None, trained: Mapping[str, torch.nn.Parameter]) -> dict[str, Tensor]:
    """The masks of the trained tensors, ones and zeros of their shapes; none where a method has no mask."""
    if saliency is None:
        return {}
    masks = load_file(saliency.file(MASKS))
    return {name: masks[name].to(parameter.device, parameter.dtype) for name, parameter in trained.items()}
