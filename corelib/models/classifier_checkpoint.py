"""Classifiers' networks and checkpoints; apart from classifying, since taking one into use classifies nothing.

The benchmark saves `{"model_state_dict": ...}`; other training scripts use other names. A state dict is looked for
under all usual ones, and exactly one has to be the network's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import timm
from torch import Tensor

from corelib.errors import AssetError, reason_of
from corelib.files.torch_files import read_plain_weights
from corelib.models.state_dicts import (
    COMPILED,
    UnfitWeights,
    check_finite,
    check_fit,
    give_weights,
    named_tensors,
    without_prefix,
    without_weights,
)

log = logging.getLogger(__name__)

NESTINGS = ("model_state_dict", "state_dict", "model", "ema", "state_dict_ema", "model_ema")
"""Under which names training scripts save a state dict."""

DEEPEST = 3
"""How many of these names may be nested."""

WRAPPERS = ("module.", COMPILED)
"""What `DataParallel` and `torch.compile` put before the names of a network's tensors; the network is the same."""

LAST_LAYERS = ("head.bias", "fc.bias", "classifier.bias")
"""What the last layer of a timm classifier is called."""


def build_classifier(architecture: str, classes: int) -> Any:
    """A network of timm's with so many classes, without weights. Raises `AssetError` if timm has none of this name."""
    if not timm.is_model(architecture):  # `hf-hub:...` names one elsewhere
        raise AssetError(f"{architecture}: timm has no network of this name by itself, expected one of its own.")
    try:
        return without_weights(lambda: timm.create_model(architecture, pretrained=False, num_classes=classes))
    except Exception as error:  # a network of another task, say, takes no `num_classes`
        raise AssetError(f"{architecture}: timm makes no classifier of this name ({reason_of(error)}).") from None


def load_classifier(path: Path, architecture: str, classes: int) -> Any:
    """A classifier with the weights of a checkpoint, in fp32, for inference and without gradients.

    Raises `AssetError` if the checkpoint does not hold exactly this network's weights, or they are not finite.
    """
    network = build_classifier(architecture, classes)
    weights = read_weights(path, network, classes)
    try:
        give_weights(network, weights)
    except UnfitWeights as error:
        raise _unfit(path, network, error) from None
    return network.eval().requires_grad_(False)


def check_classifier(path: Path, architecture: str, classes: int, values: bool) -> None:
    """Raise `AssetError` if `load_classifier` would, without loading the weights.

    Args:
        path: of the checkpoint.
        architecture: the network's name in timm.
        classes: how many it tells apart.
        values: whether to read all values and see that they are finite.
    """
    network = build_classifier(architecture, classes)
    weights = read_weights(path, network, classes)
    try:
        if values:
            check_finite(weights)
    except UnfitWeights as error:
        raise _unfit(path, network, error) from None


def read_weights(path: Path, network: Any, classes: int) -> dict[str, Tensor]:
    """The tensors of a checkpoint that are a network's, by their names in it, mapped into memory where possible.

    Raises `AssetError` if no state dict in the file is the network's, or several are.
    """
    content = read_plain_weights(path, "the classifier's weights", mapped=True)
    own = network.state_dict()
    fitting: dict[str, dict[str, Tensor]] = {}
    faults: list[AssetError] = []
    for place, inner in _nested(content):
        try:
            given, wrappers = _unwrapped(named_tensors(inner))
            _check_classes(given, classes)
            check_fit(given, own)
        except UnfitWeights as error:
            faults.append(_unfit(path, network, error, f" under {place}" if place else ""))
        else:
            fitting[place] = given
            if place != "`model_state_dict`" or wrappers:
                log.info("%s: the weights lie %s%s", path, f"under {place}" if place else "at the top", wrappers)
    if len(fitting) > 1:
        places = " and under ".join(place or "no name" for place in fitting)
        raise AssetError(
            f"{path}: the weights under {places} are all those of {type(network).__name__}, expected one of them; save "
            "the one that is meant alone."
        )
    for weights in fitting.values():
        return weights
    raise faults[0]


def _nested(content: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """What may be a state dict: all that lies under one of the usual names, or the whole content if nothing does."""
    inside = [name for name in NESTINGS if isinstance(content, Mapping) and name in content]
    if not inside or depth == DEEPEST:
        yield place, content
        return
    for name in inside:
        yield from _nested(content[name], f"{place} > `{name}`" if place else f"`{name}`", depth + 1)


def _unwrapped(given: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The tensors without the names of wrappers, and which these were, in words."""
    removed = []
    while found := [prefix for prefix in WRAPPERS if given and all(name.startswith(prefix) for name in given)]:
        given = without_prefix(given, found[0])
        removed.append(f"`{found[0]}`")
    return given, f", their names behind {' and '.join(removed)}" if removed else ""


def _check_classes(given: Mapping[str, Tensor], classes: int) -> None:
    outputs = {len(tensor) for name, tensor in given.items() if name.endswith(LAST_LAYERS) and tensor.ndim}
    if outputs and outputs != {classes}:
        raise UnfitWeights(f"the classifier has {min(outputs)} classes, expected {classes}")


def _unfit(path: Path, network: Any, error: UnfitWeights, where: str = "") -> AssetError:
    return AssetError(f"{path}: not the weights of {type(network).__name__}{where} ({error}).")
