"""State dicts: comparing the tensors of a file with those of a network, and copying them into it.

PyTorch, diffusers and transformers all load the tensors that fit. They differ in their treatment of the rest: random
values, tensors without storage, a line in a report. Here the file must contain every tensor of the network, with its
name, its shape, its kind of number and finite values, and no other tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from corelib.errors import listed

FLOATING_POINT_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

INTEGER_TYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

MAX_CHUNK = 2**24
"""Number of values checked at a time. To check a whole tensor at once might need as much memory again."""

STEP_COUNTER = "num_batches_tracked"
"""Counter of training steps in batch normalisation, which inference never reads. PyTorch saves it since 0.4.1."""

COMPILED_PREFIX = "_orig_mod."
"""Prefix that `torch.compile` adds to the names of tensors; the network is the same."""


class WeightsMismatch(ValueError):
    """Tensors do not fit a network. The message gives the reason, as a phrase for use within a sentence."""


def build_empty(build: Callable[[], Any]) -> Any:
    """Build a network whose parameters have shapes but no values; its buffers are initialised as usual."""
    with init_empty_weights(include_buffers=False):
        return build()


def check_fit(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise `WeightsMismatch` if a tensor is missing, unknown, or differs in shape or kind of number.

    Values are not read, so the tensors may be memory-mapped.

    Args:
        tensors: tensors of a file.
        expected: `state_dict()` of the network.
    """
    counters = {name for name in expected if name.rsplit(".", 1)[-1] == STEP_COUNTER}
    faults = []
    if missing := [name for name in expected if name not in tensors and name not in counters]:
        faults.append(f"it lacks {len(missing)} of {len(expected)} tensors: {listed(missing)}")
    if unknown := [name for name in tensors if name not in expected]:
        faults.append(f"{len(unknown)} of its tensors belong to no part of the network: {listed(unknown)}")
    common = [name for name in expected if name in tensors]
    if reshaped := [name for name in common if tensors[name].shape != expected[name].shape]:
        first = reshaped[0]
        shapes = f"{first} has {tuple(tensors[first].shape)}, expected {tuple(expected[first].shape)}"
        faults.append(f"{len(reshaped)} of its tensors have another shape: {shapes}{_and_more(reshaped)}")
    if other := [name for name in common if not _is_same_kind(tensors[name], expected[name])]:
        first = other[0]
        kinds = f"{first} is {_kind(tensors[first])}, expected {_expected_kind(expected[first])}"
        faults.append(f"{len(other)} of its tensors hold another kind of number: {kinds}{_and_more(other)}")
    if faults:
        raise WeightsMismatch("; ".join(faults))


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise `WeightsMismatch` if a tensor has a value that is not finite in fp32. Reads every value once."""
    if wrong := [name for name, tensor in tensors.items() if not is_finite(tensor)]:
        raise WeightsMismatch(f"{len(wrong)} of its tensors hold values that are not finite: {listed(wrong)}")


def is_finite(tensor: Tensor) -> bool:
    """Whether all values of a tensor are finite in fp32; integers always are."""
    if not tensor.is_floating_point():
        return True
    for chunk in tensor.detach().reshape(-1).split(MAX_CHUNK):
        if chunk.numel() and not torch.stack(torch.aminmax(chunk)).float().isfinite().all():
            return False
    return True


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
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise WeightsMismatch(f"it has an entry that is not a named tensor: {str(name)[:80]}")
    return dict(content)


def _and_more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _is_same_kind(tensor: Tensor, expected: Tensor) -> bool:
    if expected.is_floating_point():
        return tensor.dtype in FLOATING_POINT_TYPES
    return tensor.dtype == torch.bool if expected.dtype == torch.bool else tensor.dtype in INTEGER_TYPES


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _expected_kind(tensor: Tensor) -> str:
    if tensor.is_floating_point():
        return "fp16, bf16, fp32 or fp64"
    return "bool" if tensor.dtype == torch.bool else "an integer type"
