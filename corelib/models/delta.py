"""Deltas: the tensors in which an unlearned model differs from the base model; ours are of the cross-attention."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

ABBREVIATED = 20
"""Number of characters of an identity in messages."""


@dataclass(frozen=True)
class Delta:
    """The tensors in which an unlearned model differs from its base model.

    Attributes:
        tensors: by their names in the U-Net of diffusers.
        trained: which tensors they are.
        base: identity of the base model's U-Net.
        run: identity of the training run.
    """

    tensors: Mapping[str, Tensor]
    trained: DeltaTensors
    base: str
    run: str

    def __repr__(self) -> str:
        return f"Delta({len(self.tensors)} tensors, trained={self.trained!r}, base={self.base!r}, run={self.run!r})"

    def save(self, path: Path) -> None:
        """Write the delta as safetensors in fp32, at once or not at all; equal deltas are equal files."""
        on_cpu = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in self.tensors.items()}
        identity = {"format": DELTA_FORMAT, "base": self.base, "run": self.run, "trained": self.trained}
        with atomic_write(path) as temporary:
            # A single metadata entry: safetensors writes several in random order, and equal deltas must be equal files.
            save_file(on_cpu, temporary, metadata={DELTA_KEY: json.dumps(identity, sort_keys=True)})


def load_delta(path: Path, unet: UNet2DConditionModel, base: str) -> None:
    """Copy a delta's tensors into the U-Net from which it was trained.

    Raises `ArtefactError` if the file is damaged, was made for another base model, or names other tensors.
    """
    try:
        delta = _read(path)
    except (SafetensorError, OSError) as error:
        raise ArtefactError(
            f"{path}: the delta is damaged ({short_message(error)}); delete it and ask for the target again."
        ) from None
    check_base(delta, [base], str(path))
    copy_delta(delta, unet, str(path))


def read_delta(path: Path) -> Delta:
    """Read the delta in a user's file. Raises `ArtefactError` if the file is missing, damaged or not a delta."""
    if not path.exists():
        raise ArtefactError(f"{path}: no such file, expected a delta.")
    try:
        return _read(path)
    except (SafetensorError, OSError) as error:
        raise ArtefactError(
            f"{path}: the delta is damaged, or a file of another kind ({short_message(error)}); expected a file that "
            "the workflow or `UnlearnedModel.save` has written."
        ) from None


def _read(path: Path) -> Delta:
    with safe_open(path, framework="pt") as file:
        header = _read_header(path, file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    return Delta(tensors, header["trained"], header["base"], header["run"])


def check_base(delta: Delta, bases: Sequence[str], source: str) -> None:
    """Raise `ArtefactError` if a delta belongs to another base model.

    Args:
        delta: the delta.
        bases: identities of the base model in use, one for each kind of identity.
        source: name of the delta, for messages.
    """
    if delta.base not in bases:
        raise ArtefactError(
            f"{source}: the delta belongs to the base model {delta.base[:ABBREVIATED]}, but the base model in use is "
            f"{' or '.join(base[:ABBREVIATED] for base in bases)}; use the model from which the delta was trained."
        )


def copy_delta(delta: Delta, unet: UNet2DConditionModel, source: str) -> None:
    """Copy a delta's tensors into a U-Net. Nothing is copied if it raises.

    Args:
        delta: the delta.
        unet: the U-Net, which is changed in place.
        source: name of the delta, for messages.

    Raises `ArtefactError` if the delta names other tensors, or has other shapes.
    """
    trained = trained_parameters(unet, delta.trained)
    if differing := sorted(trained.keys() ^ delta.tensors.keys()):
        raise ArtefactError(
            f"{source}: the names of its tensors are not those of the trained tensors; first difference: "
            f"{differing[0]}."
        )
    try:
        check_fit(delta.tensors, trained)
    except WeightsMismatch as error:
        raise ArtefactError(f"{source}: not a delta of this U-Net ({error}).") from None
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(delta.tensors[name])


def _read_header(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads((metadata or {})[DELTA_KEY])
        is_valid = (
            header["format"] == DELTA_FORMAT
            and isinstance(header["base"], str)
            and isinstance(header["run"], str)
            and header["trained"] in TRAINED_NAME_PARTS
        )
    except (KeyError, TypeError, ValueError):
        is_valid = False
    if not is_valid:
        raise ArtefactError(f"{path}: not a delta, expected the format {DELTA_FORMAT!r} in its header.")
    return header
