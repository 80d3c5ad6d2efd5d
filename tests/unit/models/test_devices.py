"""What a process computes with once it is told to compute reproducibly."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from support.checkout import REPOSITORY

PROBE = """
import json, torch
from corelib.models.device import compute_with
compute_with(1)
operations = {
    "matmul on a GPU": torch.backends.cuda.matmul, "matmul on a CPU": torch.backends.mkldnn.matmul,
    "convolution on a GPU": torch.backends.cudnn.conv, "recurrence on a GPU": torch.backends.cudnn.rnn,
}
precisions = {name: operation.fp32_precision for name, operation in operations.items()}
# what the kernels ask, and which complains where the old switches and the new ones disagree
print(json.dumps({"TF32": torch._C._get_cublas_allow_tf32(), "precisions": precisions}))
"""


@pytest.mark.parametrize("override", ["0", "1"])
def test_fp32_is_fp32_on_gpus_too(override: str) -> None:
    """Convolutions take TF32 by default, and products where this variable says so."""
    environment = {**os.environ, "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": override}
    done = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["TF32"] is False
    assert set(said["precisions"].values()) == {"ieee"}, said
