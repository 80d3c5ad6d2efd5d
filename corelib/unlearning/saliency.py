"""SalUn's saliency mask: which trained weights may change (equation 9 and the text above it)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from safetensors.torch import save_file
from torch import Tensor

from corelib.errors import ArtefactError, ConfigurationError
from corelib.files.atomic import atomic_write
from corelib.models.base_model import BaseModel
from corelib.models.device import Device
from corelib.models.guidance import apply_guidance
from corelib.models.student_teacher import StudentAndTeacher
from corelib.runs.progress import Progress
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.unlearning import Saliency, SaliencyStage
from corelib.unlearning.masks import MASKS
from corelib.unlearning.objective import NoisePredictor, NoisyPairs
from corelib.unlearning.starting_model import starting_unet
from corelib.unlearning.training_data import TrainingData


def find_salient_weights(settings: SaliencyStage, context: StageContext) -> StageResult:
    """Stage: mark the trained weights with the largest gradients of equation 1, summed over all forget pairs.

    The gradients are those of the model from which the training starts. A weight is marked if the magnitude of its
    gradient reaches the threshold, which is the same for all tensors that `saliency.scope` names.

    Raises as `salient_weights` does.
    """
    base, device = BaseModel(context.inputs["pipeline"]), Device(settings.precision, context.threads)
    models = StudentAndTeacher(starting_unet(base, context.inputs), settings.trained, device)
    alphas_cumprod = base.scheduler().alphas_cumprod
    material = TrainingData.of_runs(context.inputs, settings.wording, alphas_cumprod)
    masks = salient_weights(settings.saliency, models, material, settings.batch, settings.seed)
    with atomic_write(context.folder / MASKS) as temporary:
        save_file({name: mask.cpu().contiguous() for name, mask in masks.items()}, temporary)
    num_kept = sum(int(mask.sum()) for mask in masks.values())
    return StageResult([MASKS], {"kept": num_kept, "weights": sum(mask.numel() for mask in masks.values())})


def salient_weights(
    saliency: Saliency, models: StudentAndTeacher, material: TrainingData, batch: int, seed: int
) -> dict[str, Tensor]:
    """Boolean masks of the weights that may change, in the shapes of the trained tensors.

    Args:
        saliency: which weights are ranked, and how many of them are marked.
        models: the model from which the training starts. Its gradients are filled.
        material: source of the forget pairs.
        batch: number of pairs in a forward pass.
        seed: seed of the training run.

    Raises `ArtefactError` if a gradient is not finite. Raises `ConfigurationError` if no trained weight reaches the
    threshold, since nothing would be unlearned, or if the threshold is 0, since every weight reaches it.
    """
    if saliency.scope == "all":
        models.unet.requires_grad_(True)
    else:
        models.round_frozen_weights()
    forget = material.slice.forget
    progress = Progress("pairs", len(forget))
    for start in range(0, len(forget), batch):
        pairs = forget[start : start + batch]
        noisy = material.noisy_pairs(pairs, pairs, ("saliency", seed, start)).to(models.device.torch_device)
        prediction = _predict(models.student, noisy, material, saliency.guidance_scale)
        (prediction - noisy.noise).square().mean(dim=(1, 2, 3)).sum().backward()
        progress.report(start + len(pairs))
    ranked = models.unet.named_parameters() if saliency.scope == "all" else models.trained.items()
    gradients = {name: parameter.grad for name, parameter in ranked if parameter.grad is not None}
    return saliency_masks(gradients, models.trained, saliency)


def _predict(predictor: NoisePredictor, noisy: NoisyPairs, material: TrainingData, scale: float) -> Tensor:
    """e_0 + s (e_f - e_0), (batch, c, h, w); e_0 is the prediction at the empty prompt, not needed if s = 1."""
    if scale == 1:
        return predictor(noisy.noisy, noisy.timesteps, noisy.own)
    prompts = torch.cat([material.empty_prompts(len(noisy.noisy)).to(noisy.own.device), noisy.own])
    return apply_guidance(predictor(noisy.noisy.repeat(2, 1, 1, 1), noisy.timesteps.repeat(2), prompts), scale)


def saliency_masks(gradients: Mapping[str, Tensor], trained: Collection[str], saliency: Saliency) -> dict[str, Tensor]:
    """Boolean masks of the weights that may change, in the shapes of the trained tensors.

    Args:
        gradients: gradients of the ranked tensors, in fp32, including the trained ones.
        trained: names of the trained tensors.
        saliency: `keep` or `threshold`.

    Raises as `salient_weights` does.
    """
    for name, gradient in gradients.items():
        if not torch.isfinite(gradient).all():
            raise ArtefactError(f"{name}: its gradient on the forget set is not finite; check the base model.")
    threshold = saliency_threshold(gradients, saliency)
    if threshold == 0:
        num_weights = sum(gradient.numel() for gradient in gradients.values())
        num_nonzero = sum(int(gradient.count_nonzero()) for gradient in gradients.values())
        raise ConfigurationError(
            f"saliency.keep is {saliency.keep}, expected at most {num_nonzero:,} / {num_weights:,}, the fraction of "
            "weights with a nonzero gradient on the forget set; beyond it the threshold is 0, and every weight would "
            "be trainable."
        )
    masks = {name: gradient.abs() >= threshold for name, gradient in gradients.items() if name in trained}
    if not any(mask.any() for mask in masks.values()):
        largest = max(float(gradients[name].abs().max()) for name in masks)
        if saliency.keep is not None:
            num_trained = sum(mask.numel() for mask in masks.values())
            raise ConfigurationError(
                f"saliency.keep is {saliency.keep}, but it selects none of the {num_trained:,} trained weights: other "
                "weights have larger gradients; increase it, or set saliency.scope to `trained`."
            )
        raise ConfigurationError(
            f"saliency.threshold is {threshold}, expected at most {largest:.3g}, the largest gradient magnitude of a "
            "trained weight."
        )
    return masks


def saliency_threshold(gradients: Mapping[str, Tensor], saliency: Saliency) -> float:
    """Smallest gradient magnitude of a weight that may change: `threshold`, or that reached by the fraction `keep`.

    With `keep`, the threshold is the k-th largest magnitude. Sorting the gradients of a whole U-Net would take several
    copies of them in memory. The bit patterns of non-negative floats have the order of their values, so 31 bisections
    of the pattern give the k-th largest magnitude without sorting.
    """
    if saliency.keep is None:
        assert saliency.threshold is not None
        return saliency.threshold
    k = max(1, round(saliency.keep * sum(gradient.numel() for gradient in gradients.values())))
    low, high = 0, int(torch.tensor(torch.inf).view(torch.int32))  # bits: at least k magnitudes reach low, fewer high
    while high - low > 1:
        middle = (low + high) // 2
        count = sum(int((gradient.abs().view(torch.int32) >= middle).sum()) for gradient in gradients.values())
        low, high = (middle, high) if count >= k else (low, middle)
    return float(torch.tensor(low, dtype=torch.int32).view(torch.float32))
