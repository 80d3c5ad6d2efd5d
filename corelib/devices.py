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
    """Make this process compute reproducibly: with so many CPU threads, and with deterministic algorithms."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a slow safeguard


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
