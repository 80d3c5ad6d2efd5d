"""Checks that the tensors of a file are those of a network.

PyTorch, diffusers and transformers all load the tensors that fit. They differ in their treatment of the rest: random
values, tensors without storage, a line in a report. Here the file must contain every tensor of the network, with its
name, its shape, its kind of number and finite values, and no other tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from corelib.errors import listed

FLOATING_POINT_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

INTEGER_TYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

MAX_CHUNK = 2**24
"""Number of values checked at a time. To check a whole tensor at once might need as much memory again."""

STEP_COUNTER = "num_batches_tracked"
"""Counter of training steps in batch normalisation, which inference never reads. PyTorch saves it since 0.4.1."""


class WeightsMismatch(ValueError):
    """Tensors do not fit a network. The message gives the reason, as a phrase for use within a sentence."""


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
