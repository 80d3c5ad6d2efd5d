"""The Inception networks of clean-fid and of torchvision, loaded from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from cleanfid.inception_torchscript import InceptionV3W
from torch import Tensor
from torchvision.models import inception_v3

from corelib.errors import AssetError, short_message
from corelib.files.pickle_inspection import check_archive
from corelib.files.torch_files import load_pickled
from corelib.models.state_dicts import as_state_dict, build_empty, copy_weights
from corelib.models.weight_checks import WeightsMismatch, check_finite, check_fit

INCEPTION_FEATURES = 2048

LAST_MIXTURE_LAYER = "Mixed_7c"
"""Last layer of torchvision's Inception before pooling, with 2,048 channels."""


class _Inception(InceptionV3W):  # type: ignore[misc]
    """clean-fid's network from any file; the original constructor reads a fixed file name and may download the file."""

    def __init__(self, path: Path, resize_inside: bool) -> None:
        torch.nn.Module.__init__(self)
        self.base = torch.jit.load(path, map_location="cpu").eval()
        self.layers = self.base.layers
        self.resize_inside = resize_inside


def load_clean_fid_inception(path: Path, resize_inside: bool) -> Any:
    """clean-fid's Inception network from a TorchScript file.

    TorchScript is a program, so the file must be locked. Raises `AssetError` if the file is not TorchScript, or if its
    weights are not finite.
    """
    try:
        check_archive(path)
        network = _Inception(path, resize_inside)
        check_finite(dict(network.base.state_dict()))
    except WeightsMismatch as error:
        raise AssetError(f"{path}: not loadable as an Inception network ({error}).") from None
    except Exception as error:  # torch raises many kinds for damaged files
        raise AssetError(f"{path}: not loadable as TorchScript ({short_message(error)}).") from None
    return network.eval()


def load_torchvision_inception(path: Path) -> Any:
    """torchvision's Inception v3 with the weights of a file, which is read without executing code.

    Raises `AssetError` if the file does not hold the weights of this network.
    """
    network = _untrained_inception()
    try:
        copy_weights(network, as_state_dict(load_pickled(path, mapped=True)))
    except WeightsMismatch as error:
        raise _torchvision_error(path, str(error)) from None
    except Exception as error:  # torch raises many kinds for damaged or unsafe files
        raise _torchvision_error(path, short_message(error)) from None
    return network.eval().requires_grad_(False)


def check_torchvision_inception(path: Path, values: bool) -> None:
    """Raise `AssetError` if `load_torchvision_inception` would, without loading the weights.

    Args:
        path: the file.
        values: whether to read all values and check that they are finite.
    """
    try:
        tensors = as_state_dict(load_pickled(path, mapped=True))
        check_fit(tensors, _untrained_inception().state_dict())
        if values:
            check_finite(tensors)
    except WeightsMismatch as error:
        raise _torchvision_error(path, str(error)) from None
    except Exception as error:  # torch raises many kinds for damaged or unsafe files
        raise _torchvision_error(path, short_message(error)) from None


def _untrained_inception() -> Any:
    return build_empty(lambda: inception_v3(weights=None, transform_input=True, init_weights=False))


def _torchvision_error(path: Path, reason: str) -> AssetError:
    return AssetError(f"{path}: not loadable as torchvision's Inception v3 ({reason}), expected its weights.")


def mixture_features(network: Any, pixels: Tensor) -> Tensor:
    """Channel means of the last mixture layer, (n, 2048), of images in [0, 1].

    As in the benchmark, the images are scaled to [-1, 1], although the network expects [0, 1] and normalises its
    input itself.
    """
    outputs: list[Tensor] = []
    hook = getattr(network, LAST_MIXTURE_LAYER).register_forward_hook(
        lambda _module, _inputs, output: outputs.append(output)
    )
    try:
        network(pixels * 2 - 1)
    finally:
        hook.remove()
    return outputs[0].mean(dim=(2, 3))
