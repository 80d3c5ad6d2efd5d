"""Training after another task: it starts from exactly the earlier weights, as an independent computation of a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.checkout import REPOSITORY
from support.small_world import FP32, IN_TRAINING, OBJECTS, finish, make_pipeline, make_small_world, unlearning_settings

from corelib.data.embeddings import EmbeddingCache
from corelib.errors import ArtefactError
from corelib.files.hashing import sha256_of_path
from corelib.models.base_model import BaseModel
from corelib.models.delta import DELTA_FILE, load_delta
from corelib.models.trained_parameters import trained_parameters
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.edits import Edit, EditStage
from corelib.settings.unlearning import Length, Saliency, SaliencyStage
from corelib.study.loading import load_study
from corelib.unlearning.batches import Batches
from corelib.unlearning.closed_form import concepts_of, edit_model, edited_weights
from corelib.unlearning.saliency import find_salient_weights
from corelib.unlearning.trainer import unlearn
from corelib.unlearning.training_data import TrainingData

METHODS = load_study("paper", REPOSITORY / "config").methods
RATE, EPSILON = 1e-3, 1e-8


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    return make_small_world(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def earlier(small_world: dict[str, Manifest], tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The model of an earlier task, far from the pre-trained one."""
    return unlearned(small_world, tmp_path_factory.mktemp("earlier"), "core", learning_rate=0.1, seed=5)


def unlearned(inputs: dict[str, Manifest], folder: Path, method: str, **changes: Any) -> Manifest:
    folder.mkdir(exist_ok=True)
    context = StageContext(folder, "digest", inputs)
    return finish(folder, "unlearning", unlearn(unlearning_settings(METHODS[method].objective, **changes), context))


def tensors(manifest: Manifest) -> dict[str, torch.Tensor]:
    return load_file(manifest.file(DELTA_FILE))


def expected_step(small_world: dict[str, Manifest], earlier: Manifest) -> dict[str, torch.Tensor]:
    """The weights after a first step of CORE from the earlier weights, with two separate U-Nets and Adam by hand."""
    base = BaseModel(small_world["pipeline"])
    student, teacher = base.unet(), base.unet()
    for unet in (student, teacher):
        for name, tensor in tensors(earlier).items():
            unet.get_parameter(name).data = tensor.clone()
    student.requires_grad_(True)
    settings = unlearning_settings(METHODS["core"].objective, length=Length(steps=1))
    data = TrainingData.of_runs(small_world, IN_TRAINING, base.scheduler().alphas_cumprod)
    batch = Batches(settings, data).at(0)
    forget, retain = batch.forget, batch.retain
    assert forget.anchor is not None and retain is not None
    with torch.no_grad():
        target = teacher(forget.noisy, forget.timesteps, encoder_hidden_states=forget.anchor).sample
        kept = teacher(retain.noisy, retain.timesteps, encoder_hidden_states=retain.own).sample
    found = student(forget.noisy, forget.timesteps, encoder_hidden_states=forget.own).sample
    held = student(retain.noisy, retain.timesteps, encoder_hidden_states=retain.own).sample
    loss = (found - target).square().mean() + (held - kept).square().mean()
    names = list(tensors(earlier))
    gradients = torch.autograd.grad(loss, [student.get_parameter(name) for name in names])
    return {
        name: student.get_parameter(name).detach() - RATE * gradient / (gradient.abs() + EPSILON)
        for name, gradient in zip(names, gradients, strict=True)
    }


def test_one_step_is_that_of_a_student_and_a_teacher_with_the_earlier_weights(
    small_world: dict[str, Manifest], earlier: Manifest, tmp_path: Path
) -> None:
    one_step = {"length": Length(steps=1), "learning_rate": RATE}
    found = tensors(unlearned(small_world | {"start": earlier}, tmp_path / "later", "core", **one_step))
    wanted, before = expected_step(small_world, earlier), tensors(earlier)
    assert found.keys() == wanted.keys()
    largest = max(float((found[name] - wanted[name]).abs().max()) for name in found)
    agreeing = sum(int((found[name] - wanted[name]).abs().lt(1e-5).sum()) for name in found)
    count = sum(tensor.numel() for tensor in found.values())
    assert agreeing > 0.99 * count and largest <= 2 * RATE + 1e-6, (agreeing, count, largest)
    assert all((found[name] - before[name]).abs().max() <= RATE * 1.001 for name in found)


@pytest.mark.parametrize("method", ["core", "salun", "esd"])
def test_the_delta_has_all_of_the_difference_from_the_base_model(
    method: str, small_world: dict[str, Manifest], earlier: Manifest, tmp_path: Path
) -> None:
    later = unlearned(small_world | {"start": earlier}, tmp_path / "later", method, learning_rate=1e-5)
    base = BaseModel(small_world["pipeline"])
    unet = base.unet()
    load_delta(later.file(DELTA_FILE), unet, base.unet_sha256)
    trained = trained_parameters(unet, "cross_attention")
    assert trained.keys() == tensors(earlier).keys()
    for name, tensor in tensors(earlier).items():
        assert (trained[name].detach() - tensor).abs().max() < 1e-3
    original = trained_parameters(base.unet(), "cross_attention")
    assert any((trained[name] - original[name]).abs().max() > 0.1 for name in trained)


def test_a_saliency_mask_is_that_of_the_model_from_which_the_training_starts(
    small_world: dict[str, Manifest], earlier: Manifest, tmp_path: Path
) -> None:
    """It equals the mask of a base model with these weights."""
    settings = SaliencyStage(
        saliency=Saliency(keep=0.5, threshold=None, guidance_scale=1.0, scope="trained"),
        trained="cross_attention",
        batch=4,
        wording=IN_TRAINING,
        precision=FP32,
        seed=0,
    )
    merged = make_pipeline(tmp_path / "merged")
    unet = BaseModel(merged).unet()
    load_delta(earlier.file(DELTA_FILE), unet, BaseModel(small_world["pipeline"]).unet_sha256)
    unet.save_pretrained(merged.folder / "pipeline/unet")
    parts = {**merged.facts["parts"], "unet": sha256_of_path(merged.folder / "pipeline/unet")}
    merged = finish(merged.folder, "pipeline", StageResult(["pipeline"], {**merged.facts, "parts": parts}))
    masks = []
    for name, inputs in (("start", {"start": earlier}), ("merged", {"pipeline": merged}), ("base", {})):
        folder = tmp_path / f"mask-{name}"
        folder.mkdir()
        result = find_salient_weights(settings, StageContext(folder, "digest", small_world | inputs))
        masks.append(load_file(finish(folder, "saliency", result).file("mask.safetensors")))
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])
    assert any(not torch.equal(masks[0][name], masks[2][name]) for name in masks[0])


def test_a_closed_form_edit_changes_the_weights_of_the_edit_before(
    small_world: dict[str, Manifest], tmp_path: Path
) -> None:
    def settings(style: str) -> EditStage:
        edit = Edit(erase_weight=1.0, preserve_weight=0.1, ridge=0.5, adversarial=None)
        return EditStage(edit=edit, candidates={style: ["Blue"]}, retain=["Blue"], objects=OBJECTS, wording=IN_TRAINING)

    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    before = finish(first, "edits", edit_model(settings("Amber"), StageContext(first, "digest", small_world)))
    inputs = small_world | {"start": before}
    after = finish(second, "edits", edit_model(settings("Cream"), StageContext(second, "digest", inputs)))
    weights = {name: tensor.double() for name, tensor in tensors(before).items()}
    concepts = concepts_of(settings("Cream"), EmbeddingCache.of_run(small_world["embeddings"]))
    wanted = edited_weights(weights, concepts, settings("Cream").edit)
    for name, tensor in tensors(after).items():
        assert torch.allclose(tensor, wanted[name].float(), atol=1e-6)


def test_what_comes_after_a_diverged_training_counts_as_diverged(
    small_world: dict[str, Manifest], earlier: Manifest, tmp_path: Path
) -> None:
    (tmp_path / "diverged").mkdir()
    source = earlier.file(DELTA_FILE).read_bytes()
    (tmp_path / "diverged" / DELTA_FILE).write_bytes(source)
    facts = {**earlier.facts, "diverged_at": 3}
    diverged = finish(tmp_path / "diverged", "unlearning", StageResult([DELTA_FILE], facts))
    assert unlearned(small_world | {"start": diverged}, tmp_path / "a", "core").facts["diverged_at"] == 3
    assert unlearned(small_world | {"start": earlier}, tmp_path / "b", "core").facts["diverged_at"] is None


def test_the_delta_of_another_base_model_is_refused(
    small_world: dict[str, Manifest], earlier: Manifest, tmp_path: Path
) -> None:
    other = make_pipeline(tmp_path / "other", seed=3)
    with pytest.raises(ArtefactError, match="belongs to the base model"):
        unlearned(small_world | {"pipeline": other, "start": earlier}, tmp_path / "later", "core")
