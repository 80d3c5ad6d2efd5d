"""Checkpoints of the benchmark's form; apart from the classifiers, since taking one into use classifies nothing."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from corelib.errors import AssetError
from corelib.weights import read_plain_weights

LAST_LAYERS = ("head.bias", "fc.bias", "classifier.bias")
"""What the last layer of a timm classifier is called."""


def read_weights(path: Path, classes: int) -> dict[str, Tensor]:
    """The tensors of a checkpoint `{"model_state_dict": ...}` of a classifier with so many classes.

    Raises `AssetError` if it is no such file, or its last layer has another number of outputs.
    """
    content = read_plain_weights(path, "the classifier's weights")
    if not isinstance(content, dict) or "model_state_dict" not in content:
        raise AssetError(f"{path}: no entry `model_state_dict`, expected a checkpoint of the benchmark's form.")
    weights = content["model_state_dict"]
    if not isinstance(weights, dict) or not all(_is_named_tensor(*entry) for entry in weights.items()):
        raise AssetError(f"{path}: `model_state_dict` holds more than tensors by their names, expected those alone.")
    outputs = {len(tensor) for name, tensor in weights.items() if name.endswith(LAST_LAYERS) and tensor.ndim}
    if outputs and outputs != {classes}:
        raise AssetError(f"{path}: the classifier has {min(outputs)} classes, expected {classes}.")
    return weights


def _is_named_tensor(name: object, tensor: object) -> bool:
    return isinstance(name, str) and isinstance(tensor, Tensor)
