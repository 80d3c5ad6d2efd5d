"""Delivery of training batches to the device.

A batch is a function of its step (`corelib.randomness`), so it can be prepared before its turn, in any thread.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from corelib.unlearning.batches import Batches
from corelib.unlearning.objective import Batch, NoisyPairs

PREPARED_WHEN_NEEDED = ("cpu",)
"""Devices that would compute no faster if a thread prepared batches ahead."""

ALIGNMENT = 256
"""Alignment of a tensor within a parcel, in bytes; kernels read aligned tensors in wide words."""


class BatchDelivery:
    """The batches of a run, on the device.

    On a GPU, a thread prepares the next batch while the device computes. A single copy moves a batch, and neither the
    device nor the CPU waits for it. On a CPU, batches are prepared when they are needed.

    Args:
        batches: the batches, on the CPU.
        device: device of the delivered batches.
    """

    def __init__(self, batches: Batches, device: torch.device) -> None:
        self._batches = batches
        self._device = device
        self._thread: ThreadPoolExecutor | None = None
        if device.type not in PREPARED_WHEN_NEEDED:
            self._thread = ThreadPoolExecutor(max_workers=1, initializer=_choose_gpu, initargs=(device,))
        self._ahead: tuple[int, Future[_Parcel]] | None = None

    def at(self, step: int) -> Batch:
        """The batch of a step, on the device. Raises as `Batches.at` does."""
        if self._thread is None:
            return self._batches.at(step)
        if self._ahead is None or self._ahead[0] != step:
            self._ahead = step, self._thread.submit(self._pack, step)
        parcel = self._ahead[1].result()
        if step + 1 < self._batches.steps:
            self._ahead = step + 1, self._thread.submit(self._pack, step + 1)
        return parcel.unpack(self._device)

    def _pack(self, step: int) -> _Parcel:
        return _Parcel.of(self._batches.at(step))


def _choose_gpu(device: torch.device) -> None:
    """Make a GPU that is not the first the thread's own, so that its pinned memory does not occupy the first one."""
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)


@dataclass(frozen=True)
class _Parcel:
    """A batch in one buffer of pinned memory, from which a GPU copies without the CPU.

    Attributes:
        buffer: the bytes of all tensors.
        places: side and name of each tensor, its first byte, its type and its shape.
        level: that of the batch.
    """

    buffer: Tensor
    places: list[tuple[str, str, int, torch.dtype, torch.Size]]
    level: int | None

    @classmethod
    def of(cls, batch: Batch) -> _Parcel:
        sides = {"forget": batch.forget} | ({} if batch.retain is None else {"retain": batch.retain})
        named = [
            (side, name, tensor)
            for side, pairs in sides.items()
            for name, tensor in vars(pairs).items()
            if tensor is not None
        ]
        places, end = [], 0
        for side, name, tensor in named:
            places.append((side, name, end, tensor.dtype, tensor.shape))
            end += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        parcel = cls(torch.empty(end, dtype=torch.uint8, pin_memory=True), places, batch.level)
        for (_, _, tensor), place in zip(named, parcel._tensors(parcel.buffer), strict=True):
            place.copy_(tensor)
        return parcel

    def unpack(self, device: torch.device) -> Batch:
        moved = self._tensors(self.buffer.to(device, non_blocking=True))
        sides: dict[str, dict[str, Tensor]] = {}
        for (side, name, *_), tensor in zip(self.places, moved, strict=True):
            sides.setdefault(side, {})[name] = tensor
        pairs = {side: NoisyPairs(**tensors) for side, tensors in sides.items()}
        return Batch(pairs["forget"], pairs.get("retain"), self.level)

    def _tensors(self, buffer: Tensor) -> list[Tensor]:
        """The tensors within a buffer, as views."""
        return [
            buffer[start : start + shape.numel() * dtype.itemsize].view(dtype).view(shape)
            for _, _, start, dtype, shape in self.places
        ]
