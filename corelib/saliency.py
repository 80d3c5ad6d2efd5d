"""SalUn's saliency mask: which trained weights may change (equation 9 and the text above it)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors.torch import save_file
from torch import Tensor

from corelib.artefacts import written_whole
from corelib.batches import Material
from corelib.devices import Device
from corelib.diffusion import BaseModel, StudentAndTeacher, guided
from corelib.errors import ArtefactError, ConfigurationError
from corelib.masks import MASKS
from corelib.objectives import NoisePredictor, NoisyPairs
from corelib.progress import Progress
from corelib.settings.unlearning import Saliency, SaliencyStage
from corelib.work import Outcome, Work


def find_salient_weights(settings: SaliencyStage, work: Work) -> Outcome:
    """Stage: the weights with the largest gradient of equation 1, summed over one pass of the forget pairs.

    The gradient is that of the untouched model; ones mark the weights whose magnitude reaches one threshold, the same
    for all trained tensors. Raises `ArtefactError` if a gradient is not finite, `ConfigurationError` if no weight
    reaches the threshold, and nothing would be unlearned, or if the threshold is 0, which every weight reaches.
    """
    base, device = BaseModel(work.inputs["pipeline"]), Device(settings.precision, work.threads)
    models = StudentAndTeacher(base.unet(), settings.trained, device)
    material = Material(work.inputs, settings.wording, base.scheduler().alphas_cumprod, device.torch_device)
    forget = material.slice.forget
    progress = Progress("pairs", len(forget))
    for start in range(0, len(forget), settings.batch):
        pairs = forget[start : start + settings.batch]
        noisy = material.noisy_pairs(pairs, pairs, ("saliency", settings.seed, start))
        prediction = _prediction(models.student, noisy, material, settings.saliency.guidance_scale)
        (prediction - noisy.noise).square().mean(dim=(1, 2, 3)).sum().backward()
        progress.report(start + len(pairs))
    gradients = {name: parameter.grad for name, parameter in models.trained.items() if parameter.grad is not None}
    masks = masks_of(gradients, settings.saliency)
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


def masks_of(gradients: Mapping[str, Tensor], saliency: Saliency) -> dict[str, Tensor]:
    """Which weights may change, booleans of the gradients' shapes. Raises as `find_salient_weights` does."""
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
    masks = {name: gradient.abs() >= threshold for name, gradient in gradients.items()}
    if not any(mask.any() for mask in masks.values()):
        largest = max(float(gradient.abs().max()) for gradient in gradients.values())
        raise ConfigurationError(
            f"saliency.threshold is {threshold}, expected at most {largest:.3g}, the magnitude of the largest gradient."
        )
    return masks


def threshold_of(gradients: Mapping[str, Tensor], saliency: Saliency) -> float:
    """The magnitude from which a gradient lets its weight change: as said, or as the fraction `keep` reaches it."""
    if saliency.keep is None:
        assert saliency.threshold is not None
        return saliency.threshold
    magnitudes = torch.cat([gradient.abs().flatten() for gradient in gradients.values()])
    kept = max(1, round(saliency.keep * magnitudes.numel()))
    return float(magnitudes.sort(descending=True).values[kept - 1])
