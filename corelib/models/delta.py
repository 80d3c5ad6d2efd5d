"""Deltas: the tensors in which an unlearned model differs from the base model; ours are of the cross-attention."""

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

from corelib.errors import ArtefactError, short_message
from corelib.files.atomic import atomic_write
from corelib.models.trained_parameters import TRAINED_NAME_PARTS, trained_parameters
from corelib.models.weight_checks import WeightsMismatch, check_fit
from corelib.settings.trainable import DeltaTensors

DELTA_FILE = "delta.safetensors"

DELTA_FORMAT = "corelib delta 2"

DELTA_KEY = "delta"
"""The key of the header in the metadata of a file."""


def save_delta(path: Path, tensors: Mapping[str, Tensor], trained: DeltaTensors, base: str, run: str) -> None:
    """Write the trained tensors and the identity of their base model."""
    on_cpu = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as temporary:
        # A single metadata entry: safetensors writes several in random order, and equal deltas must be equal files.
        header = json.dumps({"format": DELTA_FORMAT, "base": base, "run": run, "trained": trained}, sort_keys=True)
        save_file(on_cpu, temporary, metadata={DELTA_KEY: header})


def load_delta(path: Path, unet: UNet2DConditionModel, base: str) -> None:
    """Copy a delta's tensors into the U-Net from which it was trained.

    Raises `ArtefactError` if the file is damaged, was made for another base model, or names other tensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = _read_header(path, file.metadata())
            if header["base"] != base:
                raise ArtefactError(
                    f"{path}: the delta belongs to the base model {header['base'][:12]}, but the base model in use is "
                    f"{base[:12]}; use the model from which the delta was trained."
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    except (SafetensorError, OSError) as error:
        raise ArtefactError(
            f"{path}: the delta is damaged ({short_message(error)}); delete it and ask for the target again."
        ) from None
    trained = trained_parameters(unet, header["trained"])
    if differing := sorted(trained.keys() ^ tensors.keys()):
        raise ArtefactError(
            f"{path}: the names of its tensors are not those of the trained tensors; first difference: {differing[0]}."
        )
    try:
        check_fit(tensors, trained)
    except WeightsMismatch as error:
        raise ArtefactError(f"{path}: not a delta of this U-Net ({error}).") from None
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[name])


def _read_header(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads((metadata or {})[DELTA_KEY])
        is_valid = (
            header["format"] == DELTA_FORMAT
            and isinstance(header["base"], str)
            and header["trained"] in TRAINED_NAME_PARTS
        )
    except (KeyError, TypeError, ValueError):
        is_valid = False
    if not is_valid:
        raise ArtefactError(f"{path}: not a delta, expected the format {DELTA_FORMAT!r} in its header.")
    return header
