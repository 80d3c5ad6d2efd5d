"""On which device and in which floating-point format a model computes; through accelerate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from accelerate import Accelerator

from corelib.settings.precision import Precision

MIXED_PRECISION: dict[str, Literal["no", "bf16", "fp16"]] = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def compute_with(threads: int) -> None:
    """Make this process compute reproducibly, and in fp32 where fp32 is said: with so many CPU threads, with
    deterministic algorithms, and without TF32, which has ten bits of fp32's 23 and which GPUs take for convolutions.
    """
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Every new tensor would be filled with NaN, so that who reads what nobody has written sees it. Nothing here does:
    # whatever makes a tensor writes all of it, and the filling takes time in each of its steps.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("highest")  # first: it also undoes TORCH_ALLOW_TF32_CUBLAS_OVERRIDE
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn.fp32_precision = "ieee"  # type: ignore[attr-defined]


class Device:
    """The device that this process was given, with autocast to the precision asked for on it."""

    def __init__(self, precision: Precision, threads: int) -> None:
        compute_with(threads)
        name = precision.gpu if torch.cuda.is_available() else precision.cpu
        self._accelerator = Accelerator(mixed_precision=MIXED_PRECISION[name], cpu=not torch.cuda.is_available())
        self.torch_device: torch.device = self._accelerator.device

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Compute in the chosen precision.

        One block per forward pass: autocast caches the cast of a trained weight, and a cast made without gradients
        must not serve a pass that needs them.
        """
        with self._accelerator.autocast():
            yield
