"""Settings of torch for a computation in the user's process, which are restored after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from corelib.models.device import dtype_on, set_reproducible
from corelib.settings.precision import TrainingPrecision


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Compute in the block as a job does (`corelib.models.device.set_reproducible`), with gradients and in fp32.

    The number of CPU threads stays the user's. All settings of torch are restored at the end of the block.
    """
    utils: Any = torch.utils
    cudnn: Any = torch.backends.cudnn
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = utils.deterministic.fill_uninitialized_memory
    matmul_precision = torch.get_float32_matmul_precision()
    precisions = [backend.fp32_precision for backend in backends]
    set_reproducible(torch.get_num_threads())
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        utils.deterministic.fill_uninitialized_memory = fill
        torch.set_float32_matmul_precision(matmul_precision)
        for backend, precision in zip(backends, precisions, strict=True):
            backend.fp32_precision = precision


class PipelineDevice:
    """The device of the user's pipeline, with autocast to the precision of training.

    `corelib.models.device.Device` chooses the device of a job through accelerate, whose state the whole process shares.
    In the user's process that state belongs to the user.

    Args:
        torch_device: the device.
        precision: the precision on each kind of device.
    """

    def __init__(self, torch_device: torch.device, precision: TrainingPrecision) -> None:
        self.torch_device = torch_device
        self.dtype = dtype_on(torch_device, precision)

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """A block for one forward pass in the configured precision.

        Casts of weights are not cached: torch empties the cache at the end of the outermost block only, and there is
        one around the training. A weight is cast once in a pass, so the cache would save nothing.
        """
        is_bf16 = self.dtype == torch.bfloat16
        with torch.autocast(self.torch_device.type, dtype=torch.bfloat16, enabled=is_bf16, cache_enabled=False):
            yield
