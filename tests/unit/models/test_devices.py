"""Precision of computations in a process that was set to compute reproducibly."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from support.checkout import REPOSITORY

PROBE = """
import json, torch
from corelib.models.device import set_reproducible
set_reproducible(1)
operations = {
    "matmul on a GPU": torch.backends.cuda.matmul, "matmul on a CPU": torch.backends.mkldnn.matmul,
    "convolution on a GPU": torch.backends.cudnn.conv, "recurrence on a GPU": torch.backends.cudnn.rnn,
}
precisions = {name: operation.fp32_precision for name, operation in operations.items()}
# the kernels read this one; it raises if the old and the new switches disagree
print(json.dumps({"TF32": torch._C._get_cublas_allow_tf32(), "precisions": precisions}))
"""


@pytest.mark.parametrize("override", ["0", "1"])
def test_fp32_is_never_computed_as_tf32(override: str) -> None:
    """Convolutions use TF32 by default, and matrix products if this variable is set."""
    environment = {**os.environ, "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": override}
    done = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    state = json.loads(done.stdout)
    assert state["TF32"] is False
    assert set(state["precisions"].values()) == {"ieee"}, state
