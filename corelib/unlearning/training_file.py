"""The file with the loss of every step of a training run; without torch, so that reports start fast."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq

from corelib.runs.manifest import Manifest

TRAINING_FILE = "training.parquet"

TRAINING_COLUMNS = ("loss", "unlearn", "retain", "gradient_norm")
"""The recorded values: L, L_f, L_r (equation 4; the terms without their weights), and the norm of the gradient of the
trained tensors before a saliency mask."""


def read_training(training: Manifest) -> dict[str, np.ndarray]:
    """The recorded values of each step, (steps,), by name; `step` counts from 0.

    Raises `ArtefactError` if the file is missing or damaged.
    """
    table = pq.read_table(training.file(TRAINING_FILE), columns=["step", *TRAINING_COLUMNS])
    return {name: table.column(name).to_numpy() for name in table.column_names}
