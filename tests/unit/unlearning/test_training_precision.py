"""Training in bf16: rounding the frozen weights once changes no bit, and what trains stays in fp32."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from support.checkout import REPOSITORY
from support.small_world import make_small_world, unlearning_settings

from corelib.models.base_model import BaseModel
from corelib.models.delta import DELTA_FILE
from corelib.models.device import Device
from corelib.models.student_teacher import StudentAndTeacher
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext
from corelib.settings.precision import TrainingPrecision
from corelib.study.loading import load_study
from corelib.unlearning.trainer import unlearn
from corelib.unlearning.training_file import TRAINING_FILE

PAPER = load_study("paper", REPOSITORY / "config")
BF16 = TrainingPrecision(gpu="bf16", cpu="bf16")


@pytest.fixture(autouse=True)
def a_new_process() -> Iterator[None]:
    """A process computes in one precision only, that of its first `Device`; let this test have its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    return make_small_world(tmp_path_factory.mktemp("material"))


@pytest.mark.parametrize(
    ("method", "trained"),
    [("core", "cross_attention"), ("esd_released", "keys_and_values"), ("ediff_released", "cross_attention")],
)
def test_frozen_weights_that_are_rounded_once_give_the_same_bits(
    method: str, trained: Any, small_world: dict[str, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run leaves them in fp32, and autocast rounds them in every pass."""
    settings = unlearning_settings(
        PAPER.methods[method].objective, trained=trained, precision=BF16, batch_counts="forget"
    )
    written = []
    for folder in (tmp_path / "once", tmp_path / "in every pass"):
        folder.mkdir()
        unlearn(settings, StageContext(folder, "digest", small_world, 1, 1e9))
        written.append([(folder / name).read_bytes() for name in (DELTA_FILE, TRAINING_FILE)])
        monkeypatch.setattr(StudentAndTeacher, "round_frozen_weights", lambda _: None)
    assert written[0] == written[1]


def test_only_frozen_linear_and_convolutional_weights_are_rounded(small_world: dict[str, Manifest]) -> None:
    models = StudentAndTeacher(BaseModel(small_world["pipeline"]).unet(), "cross_attention", Device(BF16, 1))
    models.round_frozen_weights()
    kinds = {
        (type(layer).__name__, parameter.requires_grad): parameter.dtype
        for layer in models.unet.modules()
        for parameter in layer.parameters(recurse=False)
    }
    assert kinds == {
        ("Linear", True): torch.float32,
        ("Linear", False): torch.bfloat16,
        ("Conv2d", False): torch.bfloat16,
        ("GroupNorm", False): torch.float32,
        ("LayerNorm", False): torch.float32,
    }
