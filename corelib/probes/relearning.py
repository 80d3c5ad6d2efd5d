"""Relearning: a model is fine-tuned on a few images of the styles that it has forgotten.

The fewer images and steps bring a style back, the less of it was removed. A model that has never seen the style has to
learn it; a model that hides it only has to recall it.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from corelib.data.embeddings import EmbeddingCache
from corelib.data.latents import LatentCache
from corelib.data.shuffled_passes import items_of_step
from corelib.models.base_model import BaseModel
from corelib.models.delta import DELTA_FILE, Delta, read_delta
from corelib.models.device import Device
from corelib.models.trained_parameters import trained_parameters
from corelib.probes.fine_tuning import fine_tune, noisy_images
from corelib.probes.probed_model import DELTA_ROLE, earlier_divergence, probed_unet
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.probes import RelearningStage
from corelib.settings.trainable import DeltaTensors

BY_SIZE: tuple[DeltaTensors, ...] = ("keys_and_values", "cross_attention", "all")
"""The sets of tensors of a delta; each is part of the next."""


def relearn(settings: RelearningStage, context: StageContext) -> StageResult:
    """Stage: fine-tune a model by equation 1, and save the result as a delta of the base model."""
    base, device = BaseModel(context.inputs["pipeline"]), Device(settings.precision, context.threads)
    unet = probed_unet(base, context.inputs, device)
    trained = trained_parameters(unet, settings.trained)
    for parameter in trained.values():
        parameter.requires_grad_(True)
    latents, embeddings = (
        LatentCache.of_run(context.inputs["latents"]),
        EmbeddingCache.of_run(context.inputs["embeddings"]),
    )
    alphas_cumprod = base.scheduler().alphas_cumprod

    def losses_at(step: int) -> Iterator[Tensor]:
        address = ("relearning", settings.seed)
        images = items_of_step(settings.images, step, settings.batch, (*address, "order"))
        prompts = [settings.wording.prompt(style, object_) for style, object_, _ in images]
        embedded = embeddings.of(prompts).to(device.torch_device)
        batch = noisy_images(latents, images, alphas_cumprod, (*address, step)).to(device.torch_device)
        with device.autocast():
            predicted = unet(batch.noisy, batch.timesteps, encoder_hidden_states=embedded).sample
        yield (predicted.float() - batch.noise).square().mean()  # equation 1

    diverged_at = fine_tune(settings, trained, losses_at, context)
    kept = _saved_tensors(settings, context)
    Delta(trained_parameters(unet, kept), kept, base.unet_sha256, context.digest).save(context.folder / DELTA_FILE)
    before = earlier_divergence(context.inputs)
    facts = {
        "base": base.unet_sha256,
        "steps": settings.steps,
        "diverged_at": diverged_at if before is None else before,
    }
    return StageResult([DELTA_FILE], facts)


def _saved_tensors(settings: RelearningStage, context: StageContext) -> DeltaTensors:
    """The tensors in which the model may differ from the base model: by unlearning, or by relearning."""
    sets = [settings.trained]
    if DELTA_ROLE in context.inputs:
        sets.append(read_delta(context.inputs[DELTA_ROLE].file(DELTA_FILE)).trained)
    return max(sets, key=BY_SIZE.index)
