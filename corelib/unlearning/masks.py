"""Loading of saliency masks. A separate module, so that other methods do not depend on how masks are computed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from corelib.errors import ArtefactError
from corelib.files.torch_files import read_safetensors
from corelib.runs.manifest import Manifest

MASKS = "mask.safetensors"


def load_masks(saliency: Manifest | None, trained: Mapping[str, torch.nn.Parameter]) -> dict[str, Tensor]:
    """Load the masks of the trained tensors, ones and zeros of the same shapes; empty if the method has no mask.

    Raises `ArtefactError` if a mask has another shape than its tensor.
    """
    if saliency is None:
        return {}
    path = saliency.file(MASKS)
    masks = read_safetensors(path, trained)
    for name, parameter in trained.items():
        if masks[name].shape != parameter.shape:
            raise ArtefactError(
                f"{path}: {name} has shape {tuple(masks[name].shape)}, expected {tuple(parameter.shape)}."
            )
    return as_factors(masks, trained)


def as_factors(masks: Mapping[str, Tensor], trained: Mapping[str, torch.nn.Parameter]) -> dict[str, Tensor]:
    """Masks as ones and zeros on the devices of the trained tensors and in their type, to multiply gradients with."""
    return {name: masks[name].to(parameter.device, parameter.dtype) for name, parameter in trained.items()}
