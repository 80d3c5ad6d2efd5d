"""State dicts: taking them from the content of a file, and copying them into networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from corelib.models.weight_checks import WeightsMismatch, check_finite, check_fit

COMPILED_PREFIX = "_orig_mod."
"""Prefix that `torch.compile` adds to the names of tensors; the network is the same."""


def build_empty(build: Callable[[], Any]) -> Any:
    """Build a network whose parameters have shapes but no values; its buffers are initialised as usual."""
    with init_empty_weights(include_buffers=False):
        return build()


def copy_weights(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load copies of tensors into a network without weights; floating-point tensors become fp32.

    Raises `WeightsMismatch` as `check_fit` and `check_finite` do.
    """
    check_fit(tensors, network.state_dict())
    check_finite(tensors)
    values = {}
    for name, expected in network.state_dict().items():
        kind = torch.float32 if expected.is_floating_point() else expected.dtype
        values[name] = torch.empty(expected.shape, dtype=kind)
        values[name].copy_(tensors[name]) if name in tensors else values[name].zero_()  # a counter of training steps
    network.load_state_dict(values, assign=True)


def strip_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Remove a prefix from the names of tensors; names stay unchanged unless all of them have the prefix."""
    if not tensors or not all(name.startswith(prefix) for name in tensors):
        return dict(tensors)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def as_state_dict(content: Any) -> dict[str, Tensor]:
    """A state dict from the content of a file. Raises `WeightsMismatch` if it is not a mapping of names to tensors."""
    if not isinstance(content, Mapping):
        raise WeightsMismatch("it is not a mapping of names to tensors")
    for name, tensor in content.items():
        if isinstance(tensor, Mapping) and any(isinstance(value, Tensor) for value in tensor.values()):
            raise WeightsMismatch(f"its entry `{name}` is a state dict, expected tensors; save that entry alone")
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise WeightsMismatch(f"it has an entry that is not a named tensor: {str(name)[:80]}")
    return dict(content)
