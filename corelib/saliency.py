"""SalUn's saliency mask: which trained weights may change (equation 9 and the text above it)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors.torch import save_file
from torch import Tensor

from corelib.artefacts import written_whole
from corelib.batches import Material
from corelib.devices import Device
from corelib.diffusion import BaseModel, StudentAndTeacher
from corelib.masks import MASKS
from corelib.progress import Progress
from corelib.settings.unlearning import SaliencyStage
from corelib.work import Outcome, Work


def find_salient_weights(settings: SaliencyStage, work: Work) -> Outcome:
    """Stage: the weights with the largest gradient of equation 1, summed over one pass of the forget pairs.

    The gradient is that of the untouched model; ones mark the fraction `keep` with the largest magnitudes under one
    threshold over all trained tensors.
    """
    base, device = BaseModel(work.inputs["pipeline"]), Device(settings.precision, work.threads)
    models = StudentAndTeacher(base.unet(), device)
    material = Material(work.inputs, settings.prompts, base.scheduler().alphas_cumprod, device.torch_device)
    forget = material.slice.forget
    progress = Progress("pairs", len(forget))
    for start in range(0, len(forget), settings.batch):
        pairs = forget[start : start + settings.batch]
        noisy = material.noisy_pairs(pairs, pairs, ("saliency", settings.seed, start))
        prediction = models.student(noisy.noisy, noisy.timesteps, noisy.own)
        (prediction - noisy.noise).square().mean(dim=(1, 2, 3)).sum().backward()
        progress.report(start + len(pairs))
    gradients = {name: parameter.grad for name, parameter in models.trained.items() if parameter.grad is not None}
    masks = largest(gradients, settings.keep)
    with written_whole(work.folder / MASKS) as temporary:
        save_file({name: mask.cpu().contiguous() for name, mask in masks.items()}, temporary)
    kept = sum(int(mask.sum()) for mask in masks.values())
    return Outcome([MASKS], {"kept": kept, "weights": sum(mask.numel() for mask in masks.values())})


def largest(gradients: Mapping[str, Tensor], keep: float) -> dict[str, Tensor]:
    """Masks (booleans of the gradients' shapes) of the fraction `keep` of entries with the largest magnitudes."""
    magnitudes = torch.cat([gradient.abs().flatten() for gradient in gradients.values()])
    kept = max(1, round(keep * magnitudes.numel()))
    threshold = magnitudes.sort(descending=True).values[kept - 1]
    return {name: gradient.abs() >= threshold for name, gradient in gradients.items()}
