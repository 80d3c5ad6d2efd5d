"""SalUn's saliency mask: which trained weights may change (equation 9 and the text above it)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from safetensors.torch import save_file
from torch import Tensor

from corelib.errors import ArtefactError, ConfigurationError
from corelib.files.atomic import written_whole
from corelib.models.base_model import BaseModel
from corelib.models.device import Device
from corelib.models.guidance import guided
from corelib.models.student_teacher import StudentAndTeacher
from corelib.runs.progress import Progress
from corelib.runs.stage import Outcome, Work
from corelib.settings.unlearning import Saliency, SaliencyStage
from corelib.unlearning.masks import MASKS
from corelib.unlearning.objective import NoisePredictor, NoisyPairs
from corelib.unlearning.training_data import Material


def find_salient_weights(settings: SaliencyStage, work: Work) -> Outcome:
    """Stage: the weights with the largest gradient of equation 1, summed over one pass of the forget pairs.

    The gradient is that of the untouched model; ones mark the trained weights whose magnitude reaches one threshold,
    the same for all tensors that `saliency.scope` names. Raises `ArtefactError` if a gradient is not finite,
    `ConfigurationError` if no trained weight reaches the threshold, and nothing would be unlearned, or if the threshold
    is 0, which every weight reaches.
    """
    base, device = BaseModel(work.inputs["pipeline"]), Device(settings.precision, work.threads)
    models = StudentAndTeacher(base.unet(), settings.trained, device)
    if settings.saliency.scope == "all":
        models.unet.requires_grad_(True)
    material = Material(work.inputs, settings.wording, base.scheduler().alphas_cumprod, device.torch_device)
    forget = material.slice.forget
    progress = Progress("pairs", len(forget))
    for start in range(0, len(forget), settings.batch):
        pairs = forget[start : start + settings.batch]
        noisy = material.noisy_pairs(pairs, pairs, ("saliency", settings.seed, start))
        prediction = _prediction(models.student, noisy, material, settings.saliency.guidance_scale)
        (prediction - noisy.noise).square().mean(dim=(1, 2, 3)).sum().backward()
        progress.report(start + len(pairs))
    ranked = models.unet.named_parameters() if settings.saliency.scope == "all" else models.trained.items()
    gradients = {name: parameter.grad for name, parameter in ranked if parameter.grad is not None}
    masks = masks_of(gradients, models.trained, settings.saliency)
    with written_whole(work.folder / MASKS) as temporary:
        save_file({name: mask.cpu().contiguous() for name, mask in masks.items()}, temporary)
    kept = sum(int(mask.sum()) for mask in masks.values())
    return Outcome([MASKS], {"kept": kept, "weights": sum(mask.numel() for mask in masks.values())})


def _prediction(predictor: NoisePredictor, noisy: NoisyPairs, material: Material, scale: float) -> Tensor:
    """e_f guided away from e_0, the answer to the empty prompt, (batch, c, h, w); at s = 1 nothing else is asked."""
    if scale == 1:
        return predictor(noisy.noisy, noisy.timesteps, noisy.own)
    prompts = torch.cat([material.unconditioned(len(noisy.noisy)), noisy.own])
    return guided(predictor(noisy.noisy.repeat(2, 1, 1, 1), noisy.timesteps.repeat(2), prompts), scale)


def masks_of(gradients: Mapping[str, Tensor], trained: Collection[str], saliency: Saliency) -> dict[str, Tensor]:
    """Which weights may change, booleans of the shapes of the trained tensors.

    Args:
        gradients: of the tensors that are ranked, in fp32, the trained ones among them.
        trained: names of the trained tensors.
        saliency: how the threshold is chosen.

    Raises as `find_salient_weights` does.
    """
    for name, gradient in gradients.items():
        if not torch.isfinite(gradient).all():
            raise ArtefactError(f"{name}: its gradient on the forget set is not finite, expected numbers.")
    threshold = threshold_of(gradients, saliency)
    if threshold == 0:
        weights = sum(gradient.numel() for gradient in gradients.values())
        salient = sum(int(gradient.count_nonzero()) for gradient in gradients.values())
        raise ConfigurationError(
            f"saliency.keep is {saliency.keep}, expected no more than {salient:,} of {weights:,}, the weights that "
            "have a gradient on the forget set: by a threshold of 0 every weight would be let change."
        )
    masks = {name: gradient.abs() >= threshold for name, gradient in gradients.items() if name in trained}
    if not any(mask.any() for mask in masks.values()):
        largest = max(float(gradients[name].abs().max()) for name in masks)
        if saliency.keep is not None:
            weights = sum(mask.numel() for mask in masks.values())
            raise ConfigurationError(
                f"saliency.keep is {saliency.keep}, expected a larger fraction of all weights (or saliency.scope: "
                f"trained): none of the {weights:,} trained weights is among those with the largest gradients."
            )
        raise ConfigurationError(
            f"saliency.threshold is {threshold}, expected at most {largest:.3g}, the magnitude of the largest gradient."
        )
    return masks


def threshold_of(gradients: Mapping[str, Tensor], saliency: Saliency) -> float:
    """The magnitude from which a gradient lets its weight change: as said, or as the fraction `keep` reaches it.

    The magnitude at its place in the sorted row of all gradients, found without that row, which for a whole U-Net would
    be several copies of it: bits of non-negative numbers are ordered as the numbers are, so 31 bisections find it.
    """
    if saliency.keep is None:
        assert saliency.threshold is not None
        return saliency.threshold
    kept = max(1, round(saliency.keep * sum(gradient.numel() for gradient in gradients.values())))
    reached, beyond = 0, int(torch.tensor(torch.inf).view(torch.int32))  # as bits: by `kept` gradients, by fewer
    while beyond - reached > 1:
        middle = (reached + beyond) // 2
        count = sum(int((gradient.abs().view(torch.int32) >= middle).sum()) for gradient in gradients.values())
        reached, beyond = (middle, beyond) if count >= kept else (reached, middle)
    return float(torch.tensor(reached, dtype=torch.int32).view(torch.float32))
