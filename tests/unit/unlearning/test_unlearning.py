"""The unlearning loop: which tensors change, interruptions, and that a run is a function of its settings."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkout import REPOSITORY
from support.small_world import FP32, IN_TRAINING, make_pipeline, make_small_world, unlearning_settings

from corelib.data.slices import Pair
from corelib.errors import ArtefactError, Interrupted
from corelib.files.hashing import sha256_of_path
from corelib.models.base_model import BaseModel
from corelib.models.delta import DELTA_FILE, Delta, load_delta
from corelib.models.device import Device
from corelib.models.student_teacher import StudentAndTeacher
from corelib.models.trained_parameters import CROSS_ATTENTION
from corelib.runs.checkpoint import Checkpoint
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext
from corelib.settings.objective import CurrentModel, Objective
from corelib.settings.unlearning import Length
from corelib.study.loading import load_study
from corelib.unlearning import batch_delivery
from corelib.unlearning import trainer as unlearning
from corelib.unlearning.batch_delivery import BatchDelivery
from corelib.unlearning.batches import Batches
from corelib.unlearning.objective import Loss
from corelib.unlearning.trainer import Trainer, unlearn
from corelib.unlearning.training_data import TrainingData
from corelib.unlearning.training_file import TRAINING_FILE

PAPER = load_study("paper", REPOSITORY / "config")


CHECKPOINT = "checkpoint.pt"


def objective(method: str) -> Any:
    return PAPER.methods[method].objective


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    return make_small_world(tmp_path_factory.mktemp("material"))


@pytest.fixture
def run(small_world: dict[str, Manifest], tmp_path: Path) -> Callable[..., dict[str, torch.Tensor]]:
    """A function that runs unlearning in a new or given folder and returns the tensors of the delta."""
    count = iter(range(1000))

    def unlearned(settings: Any, folder: str = "", **inputs: Manifest) -> dict[str, torch.Tensor]:
        work = StageContext(
            tmp_path / (folder or f"run{next(count)}"), "digest", small_world | inputs, checkpoint_seconds=1e9
        )
        work.folder.mkdir(exist_ok=True)
        unlearn(settings, work)
        return load_file(work.folder / DELTA_FILE)

    return unlearned


def assert_same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def hashes(tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    return {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in tensors.items()}


@pytest.mark.parametrize("method", ["core", "esd", "salun", "ca_noise"])
def test_only_cross_attention_changes(
    method: str, run: Callable[..., Any], small_world: dict[str, Manifest], tmp_path: Path
) -> None:
    run(unlearning_settings(objective(method)), folder="run")
    base = BaseModel(small_world["pipeline"])
    before = hashes(base.unet().state_dict())
    unlearned = base.unet()
    load_delta(tmp_path / "run" / DELTA_FILE, unlearned, base.unet_sha256)
    after = hashes(unlearned.state_dict())
    changed = {name for name in before if before[name] != after[name]}
    cross_attention = {name for name in before if CROSS_ATTENTION in name}
    # queries do not read the prompt but change too: every trained tensor has a gradient
    assert changed == cross_attention
    assert len(cross_attention) < len(before)


def test_the_module_in_training_keeps_every_other_tensor(small_world: dict[str, Manifest]) -> None:
    models = StudentAndTeacher(BaseModel(small_world["pipeline"]).unet(), "cross_attention", Device(FP32, 1))
    trainable = {name for name, parameter in models.unet.named_parameters() if parameter.requires_grad}
    assert trainable == {name for name in models.unet.state_dict() if CROSS_ATTENTION in name}


def test_the_teacher_stays_the_pretrained_model_while_the_student_changes(small_world: dict[str, Manifest]) -> None:
    models = StudentAndTeacher(BaseModel(small_world["pipeline"]).unet(), "cross_attention", Device(FP32, 1))
    noisy, timesteps = torch.randn(2, 4, 8, 8), torch.tensor([3, 700])
    prompts = torch.randn(2, 8, 16)
    before = models.teacher(noisy, timesteps, prompts)
    assert torch.equal(before, models.student(noisy, timesteps, prompts).detach())
    with torch.no_grad():
        for parameter in models.trained.values():
            parameter.add_(0.1)
    assert torch.equal(before, models.teacher(noisy, timesteps, prompts))
    assert not torch.allclose(before, models.student(noisy, timesteps, prompts))


def test_calling_the_teacher_does_not_disturb_a_pending_backward_pass(small_world: dict[str, Manifest]) -> None:
    models = StudentAndTeacher(BaseModel(small_world["pipeline"]).unet(), "cross_attention", Device(FP32, 1))
    noisy, timesteps, prompts = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), torch.randn(2, 8, 16)

    def gradients(interleaved: bool) -> list[torch.Tensor]:
        models.unet.zero_grad()
        loss = models.student(noisy, timesteps, prompts).square().mean()
        if interleaved:
            models.teacher(noisy + 1, timesteps, prompts)
        loss.backward()
        return [parameter.grad.clone() for parameter in models.trained.values() if parameter.grad is not None]

    for alone, beside in zip(gradients(False), gradients(True), strict=True):
        assert torch.equal(alone, beside)


def test_the_same_run_twice_gives_the_same_bits(run: Callable[..., Any]) -> None:
    settings = unlearning_settings(objective("core"))
    assert_same_bits(run(settings), run(settings))


def test_another_seed_gives_another_delta(run: Callable[..., Any]) -> None:
    first, second = (run(unlearning_settings(objective("core"), seed=seed)) for seed in (0, 1))
    assert any(not torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("method", ["core", "esd"])
@pytest.mark.parametrize("after", [1, 3, 5])
def test_an_interrupted_run_resumes_to_the_same_bits(
    method: str, after: int, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = unlearning_settings(objective(method))
    undisturbed = run(settings)
    numbers = iter(range(1, 100))
    save_if_due = Checkpoint.save_if_due

    def interrupted(self: Checkpoint, state: Any) -> None:
        self._must_end = next(numbers) == after
        save_if_due(self, state)

    monkeypatch.setattr(Checkpoint, "save_if_due", interrupted)
    with pytest.raises(Interrupted):
        run(settings, folder="interrupted")
    monkeypatch.undo()
    checkpoint = tmp_path / "interrupted" / CHECKPOINT
    assert checkpoint.exists()
    assert_same_bits(run(settings, folder="interrupted"), undisturbed)
    logs = [(tmp_path / folder / TRAINING_FILE).read_bytes() for folder in ("run0", "interrupted")]
    assert logs[0] == logs[1]


def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    Checkpoint(tmp_path / CHECKPOINT, "one" * 8, 60).save({"step": 1})
    with pytest.raises(ArtefactError, match="saved by another run"):
        Checkpoint(tmp_path / CHECKPOINT, "two" * 8, 60).load()


def test_a_checkpoint_of_another_build_of_a_model_has_another_owner(tmp_path: Path) -> None:
    owners = [
        StageContext(tmp_path, "digest", {}, trained=trained).owner
        for trained in ({}, {"pipeline/x": "a"}, {"pipeline/x": "b"})
    ]
    assert len(set(owners)) == 3


def test_a_run_with_a_damaged_checkpoint_starts_from_the_beginning(run: Callable[..., Any], tmp_path: Path) -> None:
    settings = unlearning_settings(objective("core"))
    undisturbed = run(settings)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / CHECKPOINT).write_bytes(b"not a checkpoint")
    assert_same_bits(run(settings, folder="damaged"), undisturbed)


def batches(small_world: dict[str, Manifest], **changes: Any) -> Batches:
    settings = unlearning_settings(objective("core"), **changes)
    base = BaseModel(small_world["pipeline"])
    data = TrainingData.of_runs(small_world, IN_TRAINING, base.scheduler().alphas_cumprod)
    return Batches(settings, data)


def test_a_batch_does_not_depend_on_the_batches_before_it(small_world: dict[str, Manifest]) -> None:
    forwards, backwards = batches(small_world), batches(small_world)
    steps = list(range(9))
    first = {step: forwards.at(step) for step in steps}
    second = {step: backwards.at(step) for step in reversed(steps)}
    for step in steps:
        for side in ("forget", "retain"):
            one, other = getattr(first[step], side), getattr(second[step], side)
            assert torch.equal(one.noisy, other.noisy)
            assert torch.equal(one.timesteps, other.timesteps)
            assert torch.equal(one.own, other.own)


@pytest.mark.parametrize("method", ["core", "ediff", "salun_released", "esd_released"])
def test_a_batch_that_a_thread_prepared_and_one_copy_moved_is_the_same(
    method: str, small_world: dict[str, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU; here, memory cannot be pinned, and the copy goes to the CPU."""
    settings, empty = unlearning_settings(objective(method), candidates={"Amber": ["Blue"]}), torch.empty
    alphas = BaseModel(small_world["pipeline"]).scheduler().alphas_cumprod
    batches = Batches(settings, TrainingData.of_runs(small_world, IN_TRAINING, alphas))
    monkeypatch.setattr(torch, "empty", lambda *shape, pin_memory, **options: empty(*shape, **options))
    monkeypatch.setattr(batch_delivery, "PREPARED_WHEN_NEEDED", ())
    delivery = BatchDelivery(batches, torch.device("cpu"))
    for step in (0, 1, 2, 5, 4):
        delivered, expected = delivery.at(step), batches.at(step)
        assert delivered.level == expected.level and (delivered.retain is None) == (expected.retain is None)
        for side in ("forget", "retain") if expected.retain else ("forget",):
            moved, made = vars(getattr(delivered, side)), vars(getattr(expected, side))
            assert {name for name, part in moved.items() if part is None} == {n for n, p in made.items() if p is None}
            assert all(torch.equal(part, made[name]) for name, part in moved.items() if part is not None)


@pytest.mark.parametrize(
    ("method", "extra"), [("core", set()), ("ediff", {"uniform"}), ("salun_released", {"target_noisy"})]
)
def test_only_what_the_target_noise_is_made_of_is_drawn(
    method: str, extra: set[str], small_world: dict[str, Manifest]
) -> None:
    alphas = BaseModel(small_world["pipeline"]).scheduler().alphas_cumprod
    data = TrainingData.of_runs(small_world, IN_TRAINING, alphas)
    forget = Batches(unlearning_settings(objective(method)), data).at(0).forget
    assert {name for name in ("uniform", "target_noisy") if vars(forget)[name] is not None} == extra


def test_a_retain_target_of_uniform_noise_is_drawn(small_world: dict[str, Manifest]) -> None:
    content = objective("core").model_dump()
    content["retain"]["target"] = {"kind": "uniform_noise", "low": 0.0, "high": 1.0}
    alphas = BaseModel(small_world["pipeline"]).scheduler().alphas_cumprod
    data = TrainingData.of_runs(small_world, IN_TRAINING, alphas)
    batch = Batches(unlearning_settings(Objective.model_validate(content)), data).at(0)
    assert batch.retain is not None and batch.retain.uniform is not None and batch.forget.uniform is None


def test_noisy_images_follow_the_forward_process(small_world: dict[str, Manifest]) -> None:
    base = BaseModel(small_world["pipeline"])
    alphas = base.scheduler().alphas_cumprod
    data = TrainingData.of_runs(small_world, IN_TRAINING, alphas)
    pairs = [Pair("Amber", "Cats", 1), Pair("Blue", "Dogs", 3)]
    noisy = data.noisy_pairs(pairs, pairs, ("test",))
    kept = alphas[noisy.timesteps].view(-1, 1, 1, 1)
    latents = (noisy.noisy - (1 - kept).sqrt() * noisy.noise) / kept.sqrt()
    expected = base.scheduler().add_noise(latents, noisy.noise, noisy.timesteps)
    torch.testing.assert_close(noisy.noisy, expected)


def test_the_targets_own_noisy_image_has_the_same_t_and_noise_and_another_latent(
    small_world: dict[str, Manifest],
) -> None:
    alphas = BaseModel(small_world["pipeline"]).scheduler().alphas_cumprod
    data = TrainingData.of_runs(small_world, IN_TRAINING, alphas)
    pairs = [Pair("Amber", "Cats", 1), Pair("Blue", "Dogs", 3)]
    own_posterior = CurrentModel(kind="current_model", prompt="anchor", gradient="through", posterior="own")
    noisy = data.noisy_pairs(pairs, pairs, ("test",), own_posterior, ["Cream", "Cream"])
    assert torch.equal(noisy.alpha_bar, alphas[noisy.timesteps])
    assert noisy.target_noisy is not None
    kept = noisy.alpha_bar.view(-1, 1, 1, 1)
    first, second = ((x_t - (1 - kept).sqrt() * noisy.noise) / kept.sqrt() for x_t in (noisy.noisy, noisy.target_noisy))
    cache = data.latents
    rows = [cache._rows[pair] for pair in pairs]
    standard = [(z / cache.scaling_factor - cache.mean[rows]) / cache.deviation[rows] for z in (first, second)]
    assert abs(float((standard[0] * standard[1]).mean())) < 0.2, "two draws, and not one"
    assert all(float(draw.std()) == pytest.approx(1, abs=0.1) for draw in standard)
    shared = own_posterior.model_copy(update={"posterior": "shared"})
    assert data.noisy_pairs(pairs, pairs, ("test",), shared).target_noisy is None


@pytest.mark.parametrize(
    ("length", "counts", "expected"),
    [
        (Length(epochs=1), "forget", 3),
        (Length(epochs=2.5), "forget", 8),
        (Length(steps=7), "forget", 7),
        (Length(epochs=2), "both", 12),
    ],
)
def test_an_epoch_is_one_pass_over_the_forget_pairs(
    length: Length, counts: str, expected: int, small_world: dict[str, Manifest]
) -> None:
    # 6 forget pairs in batches of 2; with "both", each step has one forget pair
    assert batches(small_world, length=length, batch_counts=counts).steps == expected


def test_anchors_are_drawn_among_the_candidates_of_each_pair(small_world: dict[str, Manifest]) -> None:
    drawn = batches(small_world, candidates={"Amber": ["Blue", "Cream"]})
    pairs = [Pair("Amber", "Cats", 1)] * 4
    seen = [tuple(drawn._anchors(pairs, step)) for step in range(40)]
    assert {anchor for anchors in seen for anchor in anchors} == {"Blue", "Cream"}
    assert any(len(set(anchors)) == 2 for anchors in seen), "every pair draws its own"
    once = batches(small_world, candidates={"Amber": ["Blue", "Cream"]}, draw="step")
    assert all(len(set(once._anchors(pairs, step))) == 1 for step in range(40)), "a step draws one"


def test_equation_6_takes_the_image_of_the_anchor_style(small_world: dict[str, Manifest]) -> None:
    erasing = batches(small_world, candidates={"Amber": ["Blue"]})
    relabelled = unlearning_settings(objective("ca_noise"), candidates={"Amber": ["Blue"]})
    base = BaseModel(small_world["pipeline"])
    data = TrainingData.of_runs(small_world, IN_TRAINING, base.scheduler().alphas_cumprod)
    relabelling = Batches(relabelled, data)
    one, other = erasing.at(0).forget, relabelling.at(0).forget
    assert torch.equal(one.own, other.own), "both are prompted with p_f"
    assert torch.equal(one.noise, other.noise)
    assert not torch.equal(one.noisy, other.noisy), "but the images differ"


def test_a_loss_that_is_not_finite_marks_the_run_diverged(small_world: dict[str, Manifest], tmp_path: Path) -> None:
    settings = unlearning_settings(objective("core"), learning_rate=1e30, length=Length(steps=20))
    outcome = unlearn(settings, StageContext(tmp_path, "digest", small_world, 1, 1e9))
    assert outcome.facts["diverged_at"] is not None
    assert all(torch.isfinite(tensor).all() for tensor in load_file(tmp_path / DELTA_FILE).values())


def test_a_gradient_that_is_not_finite_marks_the_run_diverged_at_its_own_step(
    small_world: dict[str, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = unlearning.compute_loss
    calls = iter(range(100))

    def with_a_bad_gradient(*arguments: Any) -> Loss:
        loss = evaluate(*arguments)
        if next(calls) == 5:  # the last step: a finite loss, but an infinite slope
            loss = Loss(loss.total + (0 * loss.total).sqrt(), loss.unlearn, loss.retain)
        return loss

    monkeypatch.setattr(unlearning, "compute_loss", with_a_bad_gradient)
    outcome = unlearn(unlearning_settings(objective("core")), StageContext(tmp_path, "digest", small_world, 1, 1e9))
    assert outcome.facts["diverged_at"] == 5
    assert all(torch.isfinite(tensor).all() for tensor in load_file(tmp_path / DELTA_FILE).values())


@pytest.mark.parametrize("looks_after", [6, 9])
def test_where_divergence_is_noticed_late_the_result_is_that_of_its_own_step(
    looks_after: int, small_world: dict[str, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: Adam is one kernel that reads the flag itself, and the trainer looks only now and then."""
    evaluate = unlearning.compute_loss
    bad_step, calls = 5, iter(range(100))

    def with_a_bad_loss(*arguments: Any) -> Loss:
        loss = evaluate(*arguments)
        return replace(loss, total=loss.total * torch.nan) if next(calls) == bad_step else loss

    def trainer_of(steps: int) -> Trainer:
        settings = unlearning_settings(objective("core"), length=Length(steps=steps))
        base = BaseModel(small_world["pipeline"])
        models = StudentAndTeacher(base.unet(), settings.trained, Device(FP32, 1))
        data = TrainingData.of_runs(small_world, IN_TRAINING, base.scheduler().alphas_cumprod)
        return Trainer(settings, models, data, base.scheduler(), {})

    monkeypatch.setattr(unlearning, "FUSED_ON", ("cpu",))
    until_then = trainer_of(bad_step)
    assert until_then.train(0, lambda _: False) is None
    monkeypatch.setattr(unlearning, "compute_loss", with_a_bad_loss)
    diverged = trainer_of(12)
    assert diverged.train(0, lambda done: done == looks_after) == bad_step
    assert next(calls) == looks_after, "the steps after the bad one were computed, and changed nothing"
    first, second = until_then.state(bad_step), diverged.state(bad_step)
    assert_same_bits(first["trained"], second["trained"])
    for one, other in zip(first["optimizer"]["state"].values(), second["optimizer"]["state"].values(), strict=True):
        assert_same_bits(one, other)
    assert torch.equal(first["log"], second["log"][:bad_step]) and len(second["log"]) == bad_step + 1


def test_a_state_that_was_saved_after_an_unnoticed_divergence_ends_the_run_at_the_same_step(
    small_world: dict[str, Manifest], tmp_path: Path
) -> None:
    settings = unlearning_settings(objective("core"), learning_rate=1e30, length=Length(steps=20))
    base = BaseModel(small_world["pipeline"])
    data = TrainingData.of_runs(small_world, IN_TRAINING, base.scheduler().alphas_cumprod)

    def new_trainer() -> Trainer:
        models = StudentAndTeacher(base.unet(), settings.trained, Device(FP32, 1))
        return Trainer(settings, models, data, base.scheduler(), {})

    first, second = new_trainer(), new_trainer()
    for step in range(12):
        first.train_step(step)
    state = first.state(12)
    diverged_at = first.log.diverged_at()
    assert second.restore(state) == 12
    assert second.train(12, lambda _: False) == diverged_at is not None
    assert_same_bits(first.state(12)["trained"], second.state(12)["trained"])


def test_the_log_of_the_training_has_the_values_of_every_step(
    small_world: dict[str, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, evaluate, losses = unlearning_settings(objective("core")), unlearning.compute_loss, []

    def remembering(*arguments: Any) -> Loss:
        losses.append(evaluate(*arguments))
        return losses[-1]

    monkeypatch.setattr(unlearning, "compute_loss", remembering)
    outcome = unlearn(settings, StageContext(tmp_path / "once", "digest", small_world, 1, 1e9))
    rows = pd.read_parquet(tmp_path / "once" / TRAINING_FILE)
    assert outcome.files == [DELTA_FILE, TRAINING_FILE]
    assert list(rows["step"]) == list(range(outcome.facts["steps"]))
    for name, values in {
        "loss": [float(loss.total.detach()) for loss in losses],
        "unlearn": [float(loss.unlearn) for loss in losses],
        "retain": [float(loss.retain) for loss in losses],
    }.items():
        assert rows[name].to_list() == values
    assert (rows["loss"] - rows["unlearn"] - rows["retain"]).abs().max() < 1e-6, "CORE weighs both terms with 1"
    assert (rows["gradient_norm"] > 0).all() and set(rows["learning_rate"]) == {settings.learning_rate}


def test_latents_of_other_images_than_those_of_the_slice_are_refused(
    small_world: dict[str, Manifest], tmp_path: Path
) -> None:
    folder = tmp_path / "latents"
    shutil.copytree(small_world["latents"].folder, folder)
    hashes = json.loads((folder / "images.json").read_text())
    (folder / "images.json").write_text(json.dumps(hashes[1:] + hashes[:1]))
    files = {**small_world["latents"].files, "images.json": sha256_of_path(folder / "images.json")}
    other = small_world["latents"].model_copy(update={"folder": folder, "files": files})
    with pytest.raises(ArtefactError, match=r"1\.jpg changed between slicing and encoding"):
        unlearn(
            unlearning_settings(objective("core")), StageContext(tmp_path, "digest", small_world | {"latents": other})
        )


def test_equal_deltas_are_equal_files(tmp_path: Path) -> None:
    tensors = {name: torch.randn(3) for name in ("attn2.a", "attn2.b", "attn2.c")}
    for number in range(20):
        Delta(tensors, "cross_attention", "base", "run").save(tmp_path / f"{number}.safetensors")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_another_safetensors_file_is_no_delta(small_world: dict[str, Manifest], tmp_path: Path) -> None:
    save_file({"attn2": torch.zeros(1)}, tmp_path / "other.safetensors", metadata={"format": "pt"})
    base = BaseModel(small_world["pipeline"])
    with pytest.raises(ArtefactError, match="not a delta, expected the format"):
        load_delta(tmp_path / "other.safetensors", base.unet(), base.unet_sha256)


def test_a_delta_for_another_base_model_is_refused(run: Callable[..., Any], tmp_path: Path) -> None:
    run(unlearning_settings(objective("core")), folder="run")
    other = BaseModel(make_pipeline(tmp_path / "other", seed=5))
    with pytest.raises(
        ArtefactError, match=r"delta\.safetensors: the delta belongs to the base model .*, but the base model in use"
    ):
        load_delta(tmp_path / "run" / DELTA_FILE, other.unet(), other.unet_sha256)


def test_a_truncated_delta_is_refused(
    run: Callable[..., Any], small_world: dict[str, Manifest], tmp_path: Path
) -> None:
    run(unlearning_settings(objective("core")), folder="run")
    path = tmp_path / "run" / DELTA_FILE
    path.write_bytes(path.read_bytes()[:-100])
    base = BaseModel(small_world["pipeline"])
    with pytest.raises(ArtefactError, match="the delta is damaged"):
        load_delta(path, base.unet(), base.unet_sha256)
