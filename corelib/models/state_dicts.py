"""State dicts: whether the tensors of a file are those of a network, and putting them into it.

PyTorch, diffusers and transformers all load what fits and differ in what they do with the rest: random values, tensors
without storage, a line in a report. Here every tensor of the network has to be in the file, under its name, with its
shape and its kind of number, with finite values, and the file may hold no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from corelib.errors import listed

FLOATING_POINT = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

INTEGER = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

LARGEST_CHUNK = 2**24
"""Values that are looked at in one go; a whole tensor might need as much memory again."""

COUNTER = "num_batches_tracked"
"""A batch normalisation's count of training steps, which inference never reads. PyTorch saves it since 0.4.1."""

COMPILED = "_orig_mod."
"""`torch.compile` puts it before the names of a network's tensors; the network is the same."""


class UnfitWeights(ValueError):
    """Why tensors are not those of a network: some words for within a sentence."""


def without_weights(build: Callable[[], Any]) -> Any:
    """A network whose parameters have shapes and no values; its buffers are as it makes them itself."""
    with init_empty_weights(include_buffers=False):
        return build()


def check_fit(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raise `UnfitWeights` if tensors are not those of a network: one is missing, left over, or of another form.

    Values are not looked at, so the tensors may lie in a file that is mapped into memory.

    Args:
        given: the tensors of a file.
        own: the network's, its `state_dict()`.
    """
    counters = {name for name in own if name.rsplit(".", 1)[-1] == COUNTER}
    faults = []
    if missing := [name for name in own if name not in given and name not in counters]:
        faults.append(f"it lacks {len(missing)} of {len(own)} tensors: {listed(missing)}")
    if unknown := [name for name in given if name not in own]:
        faults.append(f"{len(unknown)} of its tensors belong to no part of the network: {listed(unknown)}")
    common = [name for name in own if name in given]
    if reshaped := [name for name in common if given[name].shape != own[name].shape]:
        first = reshaped[0]
        shapes = f"{first} has {tuple(given[first].shape)}, expected {tuple(own[first].shape)}"
        faults.append(f"{len(reshaped)} of its tensors have another shape: {shapes}{_and_more(reshaped)}")
    if other := [name for name in common if not _is_of_the_kind(given[name], own[name])]:
        first = other[0]
        kinds = f"{first} is {_kind(given[first])}, expected {_expected_kind(own[first])}"
        faults.append(f"{len(other)} of its tensors hold another kind of number: {kinds}{_and_more(other)}")
    if faults:
        raise UnfitWeights("; ".join(faults))


def check_finite(given: Mapping[str, Tensor]) -> None:
    """Raise `UnfitWeights` if a tensor has a value that is no finite number in fp32. Reads every value once."""
    if wrong := [name for name, tensor in given.items() if not is_finite(tensor)]:
        raise UnfitWeights(f"{len(wrong)} of its tensors hold values that are not finite: {listed(wrong)}")


def is_finite(tensor: Tensor) -> bool:
    """Whether all values of a tensor are finite numbers in fp32; integers always are."""
    if not tensor.is_floating_point():
        return True
    for chunk in tensor.detach().reshape(-1).split(LARGEST_CHUNK):
        if chunk.numel() and not torch.stack(torch.aminmax(chunk)).float().isfinite().all():
            return False
    return True


def give_weights(network: nn.Module, given: Mapping[str, Tensor]) -> None:
    """Put tensors into a network without weights, each a copy of its own, floating-point ones in fp32.

    Raises `UnfitWeights` as `check_fit` and `check_finite` do.
    """
    check_fit(given, network.state_dict())
    check_finite(given)
    values = {}
    for name, own in network.state_dict().items():
        kind = torch.float32 if own.is_floating_point() else own.dtype
        values[name] = torch.empty(own.shape, dtype=kind)
        values[name].copy_(given[name]) if name in given else values[name].zero_()  # a counter
    network.load_state_dict(values, assign=True)


def without_prefix(given: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The same tensors without what all of their names begin with; as they are, if one does not."""
    if not given or not all(name.startswith(prefix) for name in given):
        return dict(given)
    return {name.removeprefix(prefix): tensor for name, tensor in given.items()}


def named_tensors(content: Any) -> dict[str, Tensor]:
    """A state dict as it was read. Raises `UnfitWeights` if it is none, or holds more than tensors by their names."""
    if not isinstance(content, Mapping):
        raise UnfitWeights("it holds no tensors by their names")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UnfitWeights(f"it holds more than tensors by their names: {str(name)[:80]}")
    return dict(content)


def _and_more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _is_of_the_kind(given: Tensor, own: Tensor) -> bool:
    if own.is_floating_point():
        return given.dtype in FLOATING_POINT
    return given.dtype == torch.bool if own.dtype == torch.bool else given.dtype in INTEGER


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _expected_kind(tensor: Tensor) -> str:
    if tensor.is_floating_point():
        return "fp16, bf16, fp32 or fp64"
    return "bool" if tensor.dtype == torch.bool else "an integer type"
