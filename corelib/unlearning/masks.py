"""Saliency masks as training uses them; apart from how they are found, which other methods do not depend on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from corelib.errors import ArtefactError
from corelib.files.torch_files import read_safetensors
from corelib.runs.manifest import Manifest

MASKS = "mask.safetensors"


def load_masks(saliency: Manifest | None, trained: Mapping[str, torch.nn.Parameter]) -> dict[str, Tensor]:
    """The masks of the trained tensors, ones and zeros of their shapes; none where a method has no mask."""
    if saliency is None:
        return {}
    path = saliency.file(MASKS)
    masks = read_safetensors(path, trained)
    for name, parameter in trained.items():
        if masks[name].shape != parameter.shape:
            raise ArtefactError(
                f"{path}: {name} has shape {tuple(masks[name].shape)}, expected {tuple(parameter.shape)}."
            )
    return {name: masks[name].to(parameter.device, parameter.dtype) for name, parameter in trained.items()}
