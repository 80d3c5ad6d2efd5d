"""Device and floating-point format in which a model computes, through accelerate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from accelerate import Accelerator

from corelib.settings.precision import Precision

MIXED_PRECISION: dict[str, Literal["no", "bf16", "fp16"]] = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def dtype_on(device: torch.device, precision: Precision) -> torch.dtype:
    """The format in which a device computes."""
    return DTYPES[precision.cpu if device.type == "cpu" else precision.gpu]


def set_reproducible(threads: int) -> None:
    """Make this process compute reproducibly, and in full fp32 wherever fp32 is configured.

    Sets the number of CPU threads, enables deterministic algorithms and disables TF32. TF32 has 10 of the 23 mantissa
    bits of fp32, and GPUs use it for convolutions by default. An operation without a deterministic algorithm raises
    `RuntimeError`. If it only warned, the backward pass of fused attention would not be deterministic on a GPU.
    """
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # In deterministic mode PyTorch fills uninitialised tensors with NaN, which exposes reads of unwritten memory.
    # No code here reads unwritten memory, since every new tensor is written completely, and filling takes time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("highest")  # first, because it also undoes TORCH_ALLOW_TF32_CUBLAS_OVERRIDE
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn.fp32_precision = "ieee"  # type: ignore[attr-defined]


class Device:
    """The device of this process, with autocast to the precision that is configured for it.

    Attributes:
        torch_device: the device.
        dtype: the format of autocast.
    """

    def __init__(self, precision: Precision, threads: int) -> None:
        name = precision.gpu if torch.cuda.is_available() else precision.cpu
        self._accelerator = Accelerator(mixed_precision=MIXED_PRECISION[name], cpu=not torch.cuda.is_available())
        set_reproducible(threads)  # last, because an Accelerator may enable TF32
        self.torch_device: torch.device = self._accelerator.device
        self.dtype = dtype_on(self.torch_device, precision)

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Compute in the configured precision.

        Use one block per forward pass: autocast caches the cast of a trained weight, and a cast made without gradients
        must not serve a pass that needs them.
        """
        with self._accelerator.autocast():
            yield
