"""SalUn's saliency mask: which trained weights may change (equation 9 and the text above it)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from corelib.artefacts import Manifest, written_whole
from corelib.batches import Material
from corelib.checkpoints import Progress
from corelib.devices import Device
from corelib.diffusion import BaseModel, StudentAndTeacher
from corelib.settings.unlearning import SaliencyStage
from corelib.slices import FILE as SLICE
from corelib.slices import read_slice
from corelib.work import Outcome, Work

FILE = "mask.safetensors"


def find_salient_weights(settings: SaliencyStage, work: Work) -> Outcome:
    """Stage: the weights with the largest gradient of equation 1, summed over one pass of the forget pairs.

    The gradient is that of the untouched model; ones mark the fraction `keep` with the largest magnitudes under one
    threshold over all trained tensors.
    """
    base, device = BaseModel(work.inputs["pipeline"]), Device(settings.precision)
    models = StudentAndTeacher(base.unet(), device)
    material = Material(work.inputs, settings.prompts, base.scheduler().alphas_cumprod, device.torch_device)
    forget = read_slice(work.inputs["slice"].file(SLICE)).forget
    progress = Progress("pairs", len(forget))
    for start in range(0, len(forget), settings.batch):
        pairs = forget[start : start + settings.batch]
        noisy = material.noisy_pairs(pairs, pairs, ("saliency", settings.seed, start))
        prediction = models.student(noisy.noisy, noisy.timesteps, noisy.own)
        (prediction - noisy.noise).square().mean(dim=(1, 2, 3)).sum().backward()
        progress.report(start + len(pairs))
    gradients = {name: parameter.grad for name, parameter in models.trained.items() if parameter.grad is not None}
    masks = largest(gradients, settings.keep)
    with written_whole(work.folder / FILE) as temporary:
        save_file({name: mask.cpu().contiguous() for name, mask in masks.items()}, temporary)
    kept = sum(int(mask.sum()) for mask in masks.values())
    return Outcome([FILE], {"kept": kept, "weights": sum(mask.numel() for mask in masks.values())})


def largest(gradients: Mapping[str, Tensor], keep: float) -> dict[str, Tensor]:
    """Masks (booleans of the gradients' shapes) of the fraction `keep` of entries with the largest magnitudes."""
    magnitudes = torch.cat([gradient.abs().flatten() for gradient in gradients.values()])
    kept = max(1, round(keep * magnitudes.numel()))
    threshold = magnitudes.sort(descending=True).values[kept - 1]
    return {name: gradient.abs() >= threshold for name, gradient in gradients.items()}


def load_masks(saliency: Manifest | None, trained: Mapping[str, torch.nn.Parameter]) -> dict[str, Tensor]:
    """The masks of the trained tensors, ones and zeros of their shapes; none where a method has no mask."""
    if saliency is None:
        return {}
    masks = load_file(saliency.file(FILE))
    return {name: masks[name].to(parameter.device, parameter.dtype) for name, parameter in trained.items()}
