"""What a training run shows at each step: the loss, its terms and the norm of the gradient."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from corelib.files.atomic import atomic_write
from corelib.unlearning.objective import Loss
from corelib.unlearning.training_file import TRAINING_COLUMNS


class TrainingLog:
    """The values of every step. They stay on the device until they are saved, so that no step waits for them."""

    def __init__(self) -> None:
        self._saved = torch.zeros(0, len(TRAINING_COLUMNS))
        self._new: list[Tensor] = []

    def add(self, loss: Loss, gradient_norm: Tensor) -> None:
        """Record the values of the next step."""
        values = (loss.total, loss.unlearn, loss.retain, gradient_norm)
        self._new.append(torch.stack([value.detach().float() for value in values]))

    def state(self) -> Tensor:
        """The values of all steps on the CPU, (steps, 4), in the order of `TRAINING_COLUMNS`."""
        if self._new:
            self._saved = torch.cat([self._saved, torch.stack(self._new).cpu()])
            self._new.clear()
        return self._saved

    def diverged_at(self) -> int | None:
        """The first step whose loss or gradient is not finite; None if there is none."""
        is_finite = self.state()[
            :, [TRAINING_COLUMNS.index("loss"), TRAINING_COLUMNS.index("gradient_norm")]
        ].isfinite()
        diverged = (~is_finite.all(dim=1)).nonzero()
        return int(diverged[0]) if len(diverged) else None

    def end_at_divergence(self) -> int | None:
        """Remove the values of the steps after the first that diverged; return that step, or None if there is none."""
        step = self.diverged_at()
        if step is not None:
            self._saved = self._saved[: step + 1]
        return step

    def restore(self, state: Tensor, step: int) -> None:
        """Continue after the first `step` steps of an earlier attempt. Raises `ValueError` if it has other steps."""
        if state.shape != (step, len(TRAINING_COLUMNS)):
            raise ValueError(f"the log of the training has the shape {tuple(state.shape)}, expected {step} steps")
        self._saved = state.float()

    def write(self, path: Path, learning_rate: float) -> None:
        """Write the values as parquet, one row for each step; equal logs are equal files."""
        values = self.state().numpy()
        columns = {
            "step": pa.array(range(len(values)), pa.int64()),
            **{name: pa.array(values[:, number], pa.float32()) for number, name in enumerate(TRAINING_COLUMNS)},
            "learning_rate": pa.array([learning_rate] * len(values), pa.float64()),
        }
        with atomic_write(path) as temporary:
            pq.write_table(pa.table(columns), temporary)
