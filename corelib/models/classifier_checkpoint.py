"""Networks and checkpoints of classifiers. A separate module, because adopting a checkpoint classifies nothing.

The benchmark saves `{"model_state_dict": ...}`; other training scripts use other keys. All usual keys are searched for
a state dict, and exactly one state dict must fit the network.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import timm
from torch import Tensor

from corelib.errors import AssetError, short_message
from corelib.files.torch_files import read_plain_weights
from corelib.models.state_dicts import COMPILED_PREFIX, as_state_dict, build_empty, copy_weights, strip_prefix
from corelib.models.weight_checks import WeightsMismatch, check_finite, check_fit

log = logging.getLogger(__name__)

STATE_DICT_KEYS = ("model_state_dict", "state_dict", "model", "ema", "state_dict_ema", "model_ema")
"""Keys under which training scripts save a state dict."""

MAX_NESTING = 3
"""Maximum nesting depth of these keys."""

WRAPPER_PREFIXES = ("module.", COMPILED_PREFIX)
"""Prefixes that `DataParallel` and `torch.compile` add to the names of tensors; the network is the same."""

LAST_LAYER_BIASES = ("head.bias", "fc.bias", "classifier.bias")
"""Names of the last layer's bias in timm classifiers."""


def build_classifier(architecture: str, classes: int) -> Any:
    """A timm network with `classes` outputs, without weights. Raises `AssetError` if timm has no such classifier."""
    if not timm.is_model(architecture):  # `hf-hub:...` would download one
        raise AssetError(
            f"the classifier's architecture is {architecture}, expected one that timm itself includes, such as "
            "`vit_large_patch16_224`; in a study, it is world.assets.classifier_architecture."
        )
    try:
        return build_empty(lambda: timm.create_model(architecture, pretrained=False, num_classes=classes))
    except Exception as error:  # for instance, a network for another task takes no `num_classes`
        raise AssetError(
            f"the classifier's architecture is {architecture}, of which timm cannot build a classifier "
            f"({short_message(error)}); in a study, it is world.assets.classifier_architecture."
        ) from None


def load_classifier(path: Path, architecture: str, classes: int) -> Any:
    """A classifier with the weights of a checkpoint, in fp32, for inference and without gradients.

    Raises `AssetError` if the checkpoint does not hold exactly this network's weights, or they are not finite.
    """
    network = build_classifier(architecture, classes)
    weights = read_classifier_weights(path, network, classes)
    try:
        copy_weights(network, weights)
    except WeightsMismatch as error:
        raise _unfit_error(path, network, error) from None
    return network.eval().requires_grad_(False)


def check_classifier(path: Path, architecture: str, classes: int, values: bool) -> None:
    """Raise `AssetError` if `load_classifier` would, without loading the weights.

    Args:
        path: the checkpoint.
        architecture: the network's name in timm.
        classes: number of classes.
        values: whether to read all values and check that they are finite.
    """
    network = build_classifier(architecture, classes)
    weights = read_classifier_weights(path, network, classes)
    try:
        if values:
            check_finite(weights)
    except WeightsMismatch as error:
        raise _unfit_error(path, network, error) from None


def read_classifier_weights(path: Path, network: Any, classes: int) -> dict[str, Tensor]:
    """The tensors of a checkpoint that belong to a network, by name, memory-mapped where possible.

    Raises `AssetError` if no state dict in the file fits the network, or if several do.
    """
    content = read_plain_weights(path, "the classifier's weights", mapped=True)
    expected = network.state_dict()
    fitting: dict[str, dict[str, Tensor]] = {}
    faults: list[AssetError] = []
    for key, inner in _candidate_state_dicts(content):
        try:
            tensors, wrappers = _strip_wrappers(as_state_dict(inner))
            _check_classes(tensors, classes)
            check_fit(tensors, expected)
        except WeightsMismatch as error:
            faults.append(_unfit_error(path, network, error, f" under {key}" if key else ""))
        else:
            fitting[key] = tensors
            if key != "`model_state_dict`" or wrappers:
                log.info("%s: using the weights %s%s", path, f"under {key}" if key else "at the top level", wrappers)
    if len(fitting) > 1:
        locations = " and under ".join(key or "no key" for key in fitting)
        raise AssetError(
            f"{path}: the weights under {locations} all fit {type(network).__name__}, expected a single set; save only "
            "the one to use."
        )
    for weights in fitting.values():
        return weights
    raise faults[0]


def _candidate_state_dicts(content: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Candidate state dicts and their keys: all values under the usual keys, or the whole content if there are none."""
    keys = [name for name in STATE_DICT_KEYS if isinstance(content, Mapping) and name in content]
    if not keys or depth == MAX_NESTING:
        yield key, content
        return
    for name in keys:
        yield from _candidate_state_dicts(content[name], f"{key} > `{name}`" if key else f"`{name}`", depth + 1)


def _strip_wrappers(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Remove the prefixes of wrappers from the names of tensors; also describe these prefixes in words."""
    removed = []
    while common := [
        prefix for prefix in WRAPPER_PREFIXES if tensors and all(name.startswith(prefix) for name in tensors)
    ]:
        tensors = strip_prefix(tensors, common[0])
        removed.append(f"`{common[0]}`")
    return tensors, f", after removing {' and '.join(removed)} from their names" if removed else ""


def _check_classes(tensors: Mapping[str, Tensor], classes: int) -> None:
    outputs = {len(tensor) for name, tensor in tensors.items() if name.endswith(LAST_LAYER_BIASES) and tensor.ndim}
    if outputs and outputs != {classes}:
        raise WeightsMismatch(f"the classifier has {min(outputs)} classes, expected {classes}")


def _unfit_error(path: Path, network: Any, error: WeightsMismatch, where: str = "") -> AssetError:
    return AssetError(f"{path}: not the weights of {type(network).__name__}{where} ({error}).")
