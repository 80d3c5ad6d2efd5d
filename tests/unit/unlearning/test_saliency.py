"""SalUn's mask: it equals one computed pair by pair, and training obeys it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.checkout import REPOSITORY
from support.small_world import FP32, IN_TRAINING, finish, make_small_world, unlearning_settings

from corelib.errors import ArtefactError, ConfigurationError
from corelib.models.base_model import BaseModel
from corelib.models.delta import DELTA_FILE
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext
from corelib.settings.unlearning import Saliency, SaliencyStage
from corelib.study.loading import load_study
from corelib.unlearning.saliency import find_salient_weights, saliency_masks, saliency_threshold
from corelib.unlearning.trainer import unlearn
from corelib.unlearning.training_data import TrainingData

SALUN = load_study("paper", REPOSITORY / "config").methods["salun"]
HALF = Saliency(keep=0.5, threshold=None, guidance_scale=1.0, scope="trained")


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    return make_small_world(tmp_path_factory.mktemp("material"))


def saliency_of(small_world: dict[str, Manifest], folder: Path, saliency: Saliency = HALF, batch: int = 4) -> Manifest:
    settings = SaliencyStage(
        saliency=saliency, trained="cross_attention", batch=batch, wording=IN_TRAINING, precision=FP32, seed=0
    )
    work = StageContext(folder, "digest", small_world)
    work.folder.mkdir()
    return finish(work.folder, "saliency", find_salient_weights(settings, work))


def gradients_pair_by_pair(
    small_world: dict[str, Manifest], guidance_scale: float, batch: int, part: str = "attn2"
) -> dict[str, np.ndarray]:
    """|sum over the forget set of the gradient of ||eps(x_t, p) - noise||^2 / d|, in float64, one pair at a time, of
    the weights with `part` in their name."""
    base = BaseModel(small_world["pipeline"])
    unet = base.unet().double()
    source = TrainingData.of_runs(small_world, IN_TRAINING, base.scheduler().alphas_cumprod)
    weights = {name: weight for name, weight in unet.named_parameters() if part in name}
    for weight in weights.values():
        weight.requires_grad_(True)
    empty = source.empty_prompts(1).double()
    sums = {name: np.zeros(tuple(weight.shape)) for name, weight in weights.items()}
    forget = source.slice.forget
    for start in range(0, len(forget), batch):
        pairs = forget[start : start + batch]
        noisy = source.noisy_pairs(pairs, pairs, ("saliency", 0, start))
        for one in range(len(pairs)):
            x, t, noise = noisy.noisy[one, None].double(), noisy.timesteps[one, None], noisy.noise[one, None].double()
            prediction = unet(x, t, encoder_hidden_states=noisy.own[one, None].double()).sample
            if guidance_scale != 1:
                unconditional = unet(x, t, encoder_hidden_states=empty).sample
                prediction = guidance_scale * prediction - (guidance_scale - 1) * unconditional
            error = prediction - noise
            loss = (error * error).sum() / error.numel()
            for name, gradient in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
                sums[name] += gradient.numpy()
    return {name: np.abs(total) for name, total in sums.items()}


@pytest.mark.parametrize(
    ("keep", "guidance_scale", "scope"),
    [(0.5, 1.0, "trained"), (0.2, 1.0, "trained"), (0.5, 8.5, "trained"), (0.5, 1.0, "all"), (0.1, 8.5, "all")],
)
def test_the_mask_equals_one_computed_pair_by_pair(
    keep: float, guidance_scale: float, scope: Any, small_world: dict[str, Manifest], tmp_path: Path
) -> None:
    """With one threshold over the gradients of the trained weights, or of all weights of the U-Net."""
    saliency = Saliency(keep=keep, threshold=None, guidance_scale=guidance_scale, scope=scope)
    masks = saliency_of(small_world, tmp_path / "saliency", saliency)
    found = load_file(masks.file("mask.safetensors"))
    magnitudes = gradients_pair_by_pair(small_world, guidance_scale, batch=4, part="" if scope == "all" else "attn2")
    ranked = np.sort(np.concatenate([magnitude.ravel() for magnitude in magnitudes.values()]))[::-1]
    threshold = ranked[round(keep * len(ranked)) - 1]
    trained = {name: magnitude for name, magnitude in magnitudes.items() if "attn2" in name}
    assert found.keys() == trained.keys()
    agreeing = sum(int((found[name].numpy() == (trained[name] >= threshold)).sum()) for name in found)
    close = sum(int((np.abs(magnitude / threshold - 1) < 1e-4).sum()) for magnitude in magnitudes.values())
    assert close < 0.002 * len(ranked)  # rounding may move only these across the threshold
    weights = sum(magnitude.size for magnitude in trained.values())
    assert agreeing >= weights - close
    kept = sum(int(mask.sum()) for mask in found.values())
    assert (masks.facts["kept"], masks.facts["weights"]) == (kept, weights)
    expected = keep * weights if scope == "trained" else sum((trained[name] >= threshold).sum() for name in trained)
    assert kept == pytest.approx(expected, abs=2 + close)


def test_a_ranking_of_all_weights_selects_other_weights(small_world: dict[str, Manifest], tmp_path: Path) -> None:
    kept = {}
    for scope in ("trained", "all"):
        saliency = HALF.model_copy(update={"scope": scope})
        found = load_file(saliency_of(small_world, tmp_path / scope, saliency).file("mask.safetensors"))
        kept[scope] = torch.cat([found[name].flatten() for name in sorted(found)])
    assert (kept["trained"] != kept["all"]).float().mean() > 0.01


def test_a_threshold_instead_of_a_fraction_marks_the_weights_that_reach_it(
    small_world: dict[str, Manifest], tmp_path: Path
) -> None:
    magnitudes = gradients_pair_by_pair(small_world, 1.0, batch=4)
    threshold = float(np.quantile(np.concatenate([magnitude.ravel() for magnitude in magnitudes.values()]), 0.9))
    saliency = Saliency(keep=None, threshold=threshold, guidance_scale=1.0, scope="trained")
    found = saliency_of(small_world, tmp_path / "saliency", saliency)
    assert found.facts["kept"] == pytest.approx(0.1 * found.facts["weights"], rel=0.01)


def test_guidance_changes_the_mask(small_world: dict[str, Manifest], tmp_path: Path) -> None:
    guided = Saliency(keep=0.5, threshold=None, guidance_scale=8.5, scope="trained")
    masks = [
        load_file(saliency_of(small_world, tmp_path / name, saliency).file("mask.safetensors"))
        for name, saliency in (("plain", HALF), ("guided", guided))
    ]
    assert any(not torch.equal(masks[0][name], masks[1][name]) for name in masks[0])


@pytest.mark.parametrize("scope", ["trained", "all"])
def test_training_keeps_the_weights_that_the_mask_hides(
    scope: str, small_world: dict[str, Manifest], tmp_path: Path
) -> None:
    saliency = saliency_of(small_world, tmp_path / "saliency", HALF.model_copy(update={"scope": scope}))
    masks = load_file(saliency.file("mask.safetensors"))
    work = StageContext(tmp_path, "digest", small_world | {"saliency": saliency}, checkpoint_seconds=1e9)
    unlearn(unlearning_settings(SALUN.objective), work)
    before = BaseModel(small_world["pipeline"]).unet().state_dict()
    after = load_file(tmp_path / DELTA_FILE)
    for name, tensor in after.items():
        assert torch.equal(tensor[~masks[name]], before[name][~masks[name]])
    assert any(not torch.equal(tensor, before[name]) for name, tensor in after.items())


def test_a_threshold_that_no_gradient_reaches_is_refused(small_world: dict[str, Manifest], tmp_path: Path) -> None:
    """Otherwise the method would train nothing, and its row would be the original model's."""
    with pytest.raises(ConfigurationError, match=r"saliency\.threshold is 1000\.0, expected at most "):
        saliency_of(
            small_world,
            tmp_path / "saliency",
            Saliency(keep=None, threshold=1000.0, guidance_scale=1.0, scope="trained"),
        )


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    gradients = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([float("nan"), 1.0])}
    with pytest.raises(ArtefactError, match="b: its gradient on the forget set is not finite"):
        saliency_masks(gradients, set(gradients), HALF)


def test_a_fraction_that_exceeds_the_weights_with_a_gradient_is_refused() -> None:
    """Otherwise the threshold would be 0, which every weight reaches, and the mask would hide none."""
    gradients = {"a": torch.tensor([1.0, -5.0, 0.0]), "b": torch.zeros(2)}
    with pytest.raises(ConfigurationError, match=r"saliency\.keep is 0\.6, expected at most 2 / 5, the fraction"):
        saliency_masks(
            gradients, set(gradients), Saliency(keep=0.6, threshold=None, guidance_scale=1.0, scope="trained")
        )
    masks = saliency_masks(
        gradients, set(gradients), Saliency(keep=0.4, threshold=None, guidance_scale=1.0, scope="trained")
    )
    assert [mask.tolist() for mask in masks.values()] == [[True, True, False], [False, False]]


def test_a_fraction_of_all_weights_without_a_trained_weight_is_refused() -> None:
    gradients = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([9.0, 3.0])}
    saliency = Saliency(keep=0.5, threshold=None, guidance_scale=1.0, scope="all")
    with pytest.raises(ConfigurationError, match=r"saliency\.keep is 0\.5, .* none of the 2 trained weights"):
        saliency_masks(gradients, {"a"}, saliency)


@pytest.mark.parametrize("keep", [1e-9, 0.01, 0.37, 0.5, 0.999, 1.0])
def test_the_threshold_is_the_kth_largest_magnitude(keep: float) -> None:
    """Including ties, zeros, subnormal numbers and the largest ones."""
    torch.manual_seed(0)
    extreme = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38, 1.0, -1.0, 1.0])
    gradients = {"a": torch.randn(7, 5).t(), "b": extreme, "c": torch.randn(400).mul(1e-20), "d": torch.tensor(2.5)}
    ranked = np.sort(np.concatenate([np.abs(gradient.numpy()).ravel() for gradient in gradients.values()]))[::-1]
    expected = ranked[max(1, round(keep * len(ranked))) - 1]
    saliency = Saliency(keep=keep, threshold=None, guidance_scale=1.0, scope="trained")
    assert saliency_threshold(gradients, saliency) == float(expected)


def test_all_tensors_share_one_threshold() -> None:
    gradients = {"a": torch.tensor([1.0, -5.0, 0.1]), "b": torch.tensor([[2.0, -0.2], [3.0, 4.0]])}
    assert (
        saliency_threshold(gradients, Saliency(keep=3 / 7, threshold=None, guidance_scale=1.0, scope="trained")) == 3.0
    )
