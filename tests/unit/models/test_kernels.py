"""Compiled networks and channels-last: the same results up to rounding, and the same bits each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.small_world import make_small_world, samples_settings, unlearning_settings
from torch import Tensor, nn

from corelib.errors import DeviceError
from corelib.in_memory.paper_methods import paper_study
from corelib.models.delta import DELTA_FILE
from corelib.models.kernels import set_kernels
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext
from corelib.sampling.sampler import Sampler
from corelib.settings.kernels import Kernels
from corelib.settings.sampling import SamplesStage
from corelib.unlearning.trainer import unlearn

CHANNELS_LAST = Kernels(compile=None, channels_last=True)
BOTH = Kernels(compile="default", channels_last=True)
GRID = [("Amber", "Cats", 1), ("Blue", "Cats", 1)]


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    return make_small_world(tmp_path_factory.mktemp("material"))


def train(folder: Path, small_world: dict[str, Manifest], **changes: Any) -> dict[str, Tensor]:
    folder.mkdir()
    settings = unlearning_settings(paper_study().methods["core"].objective, **changes)
    unlearn(settings, StageContext(folder, "digest", small_world, 1, 1e9))
    return load_file(folder / DELTA_FILE)


def sample(folder: Path, small_world: dict[str, Manifest], kernels: dict[str, Any] | None = None) -> Tensor:
    content = samples_settings(GRID).model_dump()
    content["sampling"]["kernels"] |= kernels or {}
    return Sampler(SamplesStage.model_validate(content), StageContext(folder, "digest", small_world)).images_of(GRID)


def assert_equal_up_to_rounding(plain: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert plain.keys() == other.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(other[name], tensor, atol=2e-5, rtol=0, msg=name)


def test_channels_last_changes_results_by_rounding(small_world: dict[str, Manifest], tmp_path: Path) -> None:
    plain, other = (
        train(tmp_path / "plain", small_world),
        train(tmp_path / "last", small_world, kernels=CHANNELS_LAST),
    )
    assert_equal_up_to_rounding(plain, other)
    images = sample(tmp_path, small_world), sample(tmp_path, small_world, {"channels_last": True})
    torch.testing.assert_close(images[1], images[0], atol=1e-4, rtol=0)


@pytest.mark.slow
def test_compiled_networks_change_results_by_rounding_and_repeat_their_bits(
    small_world: dict[str, Manifest], tmp_path: Path
) -> None:
    plain, first, second = (
        train(tmp_path / "plain", small_world),
        train(tmp_path / "first", small_world, kernels=BOTH),
        train(tmp_path / "second", small_world, kernels=BOTH),
    )
    assert_equal_up_to_rounding(plain, first)
    assert any(not torch.equal(plain[name], first[name]) for name in plain), "nothing was compiled"
    assert all(torch.equal(first[name], second[name]) for name in first)
    images = [sample(tmp_path, small_world, kernels) for kernels in (None, BOTH.model_dump(), BOTH.model_dump())]
    torch.testing.assert_close(images[1], images[0], atol=1e-4, rtol=0)
    assert torch.equal(images[1], images[2])


def test_a_machine_without_a_compiler_gets_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(DeviceError, match=r"no C\+\+ compiler \(g\+\+, clang\+\+\) is in PATH"):
        set_kernels(nn.Linear(2, 2), BOTH)
