"""The Inception networks of clean-fid and of torchvision, loaded from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from cleanfid.inception_torchscript import InceptionV3W
from torch import Tensor
from torchvision.models import inception_v3

from corelib.errors import AssetError, reason_of
from corelib.files.pickle_inspection import check_archive
from corelib.files.torch_files import load_pickled
from corelib.models.state_dicts import (
    UnfitWeights,
    check_finite,
    check_fit,
    give_weights,
    named_tensors,
    without_weights,
)

INCEPTION_FEATURES = 2048

LAST_MIXTURE = "Mixed_7c"
"""Of torchvision's Inception, the last layer before pooling: 2,048 channels."""


class _Inception(InceptionV3W):  # type: ignore[misc]
    """clean-fid's network from any file; its own constructor knows one file name only, and may download it."""

    def __init__(self, path: Path, resize_inside: bool) -> None:
        torch.nn.Module.__init__(self)
        self.base = torch.jit.load(path, map_location="cpu").eval()
        self.layers = self.base.layers
        self.resize_inside = resize_inside


def clean_inception(path: Path, resize_inside: bool) -> Any:
    """clean-fid's Inception network from a TorchScript file, which is a program: only one that is locked.

    Raises `AssetError` if the file is none, or its weights are not finite.
    """
    try:
        check_archive(path)
        network = _Inception(path, resize_inside)
        check_finite(dict(network.base.state_dict()))
    except UnfitWeights as error:
        raise AssetError(f"{path}: not loadable as an Inception network ({error}).") from None
    except Exception as error:  # torch raises many kinds for damaged files
        raise AssetError(f"{path}: not loadable as TorchScript ({reason_of(error)}).") from None
    return network.eval()


def torchvision_inception(path: Path) -> Any:
    """torchvision's Inception v3 with the weights of a file, which are read without executing anything.

    Raises `AssetError` if they are not its weights.
    """
    network = _untrained_inception()
    try:
        give_weights(network, named_tensors(load_pickled(path, mapped=True)))
    except UnfitWeights as error:
        raise _not_torchvisions(path, str(error)) from None
    except Exception as error:  # torch raises many kinds for damaged or unsafe files
        raise _not_torchvisions(path, reason_of(error)) from None
    return network.eval().requires_grad_(False)


def check_torchvision_inception(path: Path, values: bool) -> None:
    """Raise `AssetError` if `torchvision_inception` would, without loading the weights.

    Args:
        path: of the file.
        values: whether to read all values and see that they are finite.
    """
    try:
        given = named_tensors(load_pickled(path, mapped=True))
        check_fit(given, _untrained_inception().state_dict())
        if values:
            check_finite(given)
    except UnfitWeights as error:
        raise _not_torchvisions(path, str(error)) from None
    except Exception as error:  # torch raises many kinds for damaged or unsafe files
        raise _not_torchvisions(path, reason_of(error)) from None


def _untrained_inception() -> Any:
    return without_weights(lambda: inception_v3(weights=None, transform_input=True, init_weights=False))


def _not_torchvisions(path: Path, reason: str) -> AssetError:
    return AssetError(f"{path}: not loadable as torchvision's Inception v3 ({reason}), expected its weights.")


def mixture_features(network: Any, pixels: Tensor) -> Tensor:
    """The averages of the last mixture's channels, (n, 2048), of images in [0, 1].

    The benchmark brings them to [-1, 1], and the network takes them for [0, 1] and normalises them once more.
    """
    seen: list[Tensor] = []
    hook = getattr(network, LAST_MIXTURE).register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    try:
        network(pixels * 2 - 1)
    finally:
        hook.remove()
    return seen[0].mean(dim=(2, 3))
