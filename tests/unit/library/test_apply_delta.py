"""Deltas are applied to the base model from which they were trained, and to no other pipeline."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.miniature import shipped_pipeline
from support.small_world import make_pipeline

from corelib.errors import ArtefactError
from corelib.files.hashing import sha256_of_path
from corelib.in_memory.pipeline_in_memory import PipelineInMemory
from corelib.library import Delta, apply_delta, read_delta
from corelib.models.trained_parameters import trained_parameters


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pipeline(tmp_path_factory.mktemp("base")).folder / "pipeline"


def delta_of(folder: Path, **changes: Any) -> Delta:
    """A delta of a workflow's run on a base model: all trained tensors are larger by 1."""
    trained = trained_parameters(shipped_pipeline(folder).unet, "cross_attention")
    tensors = {name: tensor.detach() + 1 for name, tensor in trained.items()}
    return replace(Delta(tensors, "cross_attention", sha256_of_path(folder / "unet"), "run"), **changes)


def in_memory_alone(folder: Path) -> Any:
    """A pipeline that does not know from which folder it comes."""
    pipeline = shipped_pipeline(folder)
    pipeline.unet.register_to_config(_name_or_path="somebody/model")
    return pipeline


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_the_tensors_of_a_delta_are_put_into_the_pipeline(folder: Path, tmp_path: Path, kind: torch.dtype) -> None:
    delta, pipeline = delta_of(folder), shipped_pipeline(folder, dtype=kind)
    before = {name: tensor.clone() for name, tensor in pipeline.unet.state_dict().items()}
    delta.save(tmp_path / "delta.safetensors")
    assert apply_delta(pipeline, tmp_path / "delta.safetensors") is None
    for name, tensor in pipeline.unet.state_dict().items():
        assert tensor.dtype == kind
        assert torch.equal(tensor, delta.tensors[name].to(kind) if "attn2" in name else before[name]), name
    assert read_delta(tmp_path / "delta.safetensors").base == delta.base


def test_a_delta_of_another_folder_is_refused_and_nothing_changes(folder: Path, tmp_path: Path) -> None:
    other = make_pipeline(tmp_path, seed=1).folder / "pipeline"
    pipeline = shipped_pipeline(other)
    before = {name: tensor.clone() for name, tensor in pipeline.unet.state_dict().items()}
    with pytest.raises(
        ArtefactError, match=r"delta: the delta belongs to the base model .*, but the base model in use"
    ):
        apply_delta(pipeline, delta_of(folder))
    assert all(torch.equal(tensor, before[name]) for name, tensor in pipeline.unet.state_dict().items())


def test_a_second_delta_on_the_first_is_refused(folder: Path) -> None:
    pipeline = shipped_pipeline(folder)
    apply_delta(pipeline, delta_of(folder))
    with pytest.raises(ArtefactError, match=r"pipeline\.unet does not have the weights of .*unet, from which it was"):
        apply_delta(pipeline, delta_of(folder))


def test_a_pipeline_without_a_folder_is_known_by_its_tensors(folder: Path) -> None:
    pipeline = in_memory_alone(folder)
    identity = PipelineInMemory(pipeline).tensors_identity()
    apply_delta(pipeline, delta_of(folder, base=identity))
    assert PipelineInMemory(pipeline).tensors_identity() != identity
    with pytest.raises(ArtefactError, match="belongs to the base model tensors-"):
        apply_delta(pipeline, delta_of(folder, base=identity))


def test_without_a_folder_the_log_says_that_only_names_and_shapes_are_compared(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="corelib"):
        apply_delta(in_memory_alone(folder), delta_of(folder))
    assert "only names and shapes are compared" in caplog.text


def test_a_folder_that_changed_after_loading_is_no_identity(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "pipeline"
    shutil.copytree(folder, copy)
    pipeline = shipped_pipeline(copy)
    shutil.rmtree(copy / "unet")
    shutil.copytree(make_pipeline(tmp_path / "other", seed=1).folder / "pipeline/unet", copy / "unet")
    assert PipelineInMemory(pipeline).folder_identity(rounded=True) is None
    shutil.copytree(folder / "unet", copy / "unet", dirs_exist_ok=True)
    assert PipelineInMemory(pipeline).folder_identity(rounded=True) == sha256_of_path(folder / "unet")


def test_weights_rounded_in_memory_are_another_model_for_training(folder: Path) -> None:
    half = PipelineInMemory(shipped_pipeline(folder, dtype=torch.float16))
    assert half.folder_identity(rounded=False) is None
    assert half.folder_identity(rounded=True) == sha256_of_path(folder / "unet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors | {"x.attn2.y": torch.zeros(1)}, r"first difference: x\.attn2\.y"),
        (lambda tensors: {name: tensor[:1] for name, tensor in tensors.items()}, "not a delta of this U-Net"),
    ],
    ids=["names", "shapes"],
)
def test_a_delta_with_other_tensors_is_refused(folder: Path, change: Any, message: str) -> None:
    delta = delta_of(folder)
    with pytest.raises(ArtefactError, match=message):
        apply_delta(shipped_pipeline(folder), replace(delta, tensors=change(delta.tensors)))


def test_a_damaged_file_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "delta.safetensors").write_text(json.dumps({}))
    with pytest.raises(ArtefactError, match=r"delta\.safetensors: the delta is damaged, or a file of another kind \("):
        apply_delta(shipped_pipeline(folder), tmp_path / "delta.safetensors")


def test_files_that_are_no_deltas_are_called_so(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"none\.safetensors: no such file, expected a delta\."):
        apply_delta(shipped_pipeline(folder), tmp_path / "none.safetensors")
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    with pytest.raises(ArtefactError, match=r"model\.safetensors: not a delta, expected the format "):
        apply_delta(shipped_pipeline(folder), weights)
