"""Precision of computations in a process that was set to compute reproducibly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkout import REPOSITORY
from support.small_world import FP32, make_small_world, samples_settings, unlearning_settings
from torch.utils._python_dispatch import TorchDispatchMode

from corelib.models import device
from corelib.models.device import set_reproducible
from corelib.runs.stage_context import StageContext
from corelib.sampling.sampler import Sampler
from corelib.settings.unlearning import Length
from corelib.study.loading import load_study
from corelib.unlearning.trainer import unlearn

NOT_DETERMINISTIC = {
    *("avg_pool3d_backward", "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward"),
    *("adaptive_max_pool2d_backward", "fractional_max_pool2d_backward", "fractional_max_pool3d_backward"),
    *("max_unpool2d", "max_unpool3d", "upsample_linear1d_backward", "upsample_bilinear2d_backward"),
    *("upsample_bicubic2d_backward", "upsample_trilinear3d_backward", "reflection_pad1d_backward"),
    *("reflection_pad2d_backward", "reflection_pad3d_backward", "nll_loss2d_forward", "nll_loss2d_backward"),
    *("_ctc_loss_backward", "_embedding_bag_dense_backward", "put_", "histc", "bincount", "median"),
    *("grid_sampler_2d_backward", "grid_sampler_3d_backward", "scatter_reduce", "resize_"),
}
"""The operations that have no deterministic algorithm on a GPU, as torch.use_deterministic_algorithms lists them."""


class Names(TorchDispatchMode):
    """Collects the names of the operations."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_training_and_sampling_need_no_operation_that_is_not_deterministic_on_a_gpu(tmp_path: Path) -> None:
    """A job refuses such operations, and there is no GPU here to try it."""
    inputs, settings = (
        make_small_world(tmp_path / "world"),
        samples_settings([("Amber", "Cats", 1), ("Blue", "Cats", 1)]),
    )
    paper = load_study("paper", REPOSITORY / "config")
    with Names() as names:
        for method in ("core", "ediff_released", "esd_released"):
            folder = tmp_path / method
            folder.mkdir()
            short = unlearning_settings(paper.methods[method].objective, length=Length(steps=1))
            unlearn(short, StageContext(folder, "digest", inputs, 1, 1e9))
        Sampler(settings, StageContext(tmp_path, "digest", inputs)).images_of(settings.grid)
    assert {"convolution_backward", "native_group_norm_backward", "upsample_nearest2d_backward"} <= names.found
    assert names.found & NOT_DETERMINISTIC == set()


def test_operations_without_a_deterministic_algorithm_are_refused() -> None:
    set_reproducible(torch.get_num_threads())
    assert torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()


def test_an_accelerator_cannot_enable_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """accelerate does, on a GPU in fp32, if the environment names a backend of dynamo."""

    def enabling(**_: Any) -> Any:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        return type("Accelerator", (), {"device": torch.device("cpu")})

    monkeypatch.setattr(device, "Accelerator", enabling)
    device.Device(FP32, torch.get_num_threads())
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"


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
