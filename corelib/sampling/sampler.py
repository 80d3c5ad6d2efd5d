"""Sampling: DDIM with classifier-free guidance, from addressed noise, in addressed batches.

Image i of a run's grid is always in slot i % B of batch i // B, and the last batch is padded. Neither the number of
shards nor an interruption changes which images are computed together, so no bit of any image changes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from corelib.data.embeddings import EmbeddingCache
from corelib.models.base_model import BaseModel
from corelib.models.delta import DELTA_FILE, load_delta
from corelib.models.device import Device, dtype_on
from corelib.models.frozen_weights import round_frozen_weights
from corelib.models.guidance import apply_guidance
from corelib.models.kernels import begin_step, set_kernels
from corelib.randomness import generator
from corelib.runs.progress import Progress
from corelib.runs.stage_context import StageContext, StageResult
from corelib.sampling.batch_writer import BatchWriter
from corelib.sampling.collection import is_complete
from corelib.sampling.grid import SampleKey, record_path, split_into_batches
from corelib.settings.sampling import SamplesStage, Sampling

log = logging.getLogger(__name__)


def sample_shard(settings: SamplesStage, context: StageContext, shard: int, shards: int) -> StageResult:
    """Stage: sample every `shards`-th batch of a run, from number `shard` on; complete batches are not sampled again.

    Constant or non-finite images of an unlearned model are flagged. Raises `ArtefactError` if the original model
    samples one.
    """
    numbers = range(shard, len(split_into_batches(settings)), shards)
    sample_batches(settings, context, numbers, lambda: Sampler(settings, context))
    return StageResult([str(record_path(number)) for number in numbers])


def sample_batches(
    settings: SamplesStage, context: StageContext, numbers: Sequence[int], make_sampler: Callable[[], Sampler]
) -> None:
    """Sample those of a run's batches that are not complete, and write their images and records.

    Args:
        settings: settings of the run.
        context: context of its job.
        numbers: the numbers of the batches.
        make_sampler: returns the sampler; called only if there is a batch to sample.
    """
    batches = split_into_batches(settings)
    missing = [number for number in numbers if not is_complete(context.folder / record_path(number), context.trained)]
    log.info("sampling %d of %d batches; the others are complete", len(missing), len(numbers))
    if not missing:
        return
    sampler, progress = make_sampler(), Progress("batches", len(missing))
    is_original = "delta" not in context.inputs
    with BatchWriter(context.folder, context.trained, settings.sampling.jpeg_quality, is_original) as writer:
        for done, number in enumerate(missing, start=1):
            writer.write(number, batches[number], sampler.sample(batches[number]))
            progress.report(done)


class Sampler:
    """Samples images of a run with its model. Writes no files."""

    def __init__(self, settings: SamplesStage, context: StageContext) -> None:
        base = BaseModel(context.inputs["pipeline"])
        self.settings = settings
        self.device = Device(settings.sampling.precision, context.threads)
        self.decoding_dtype = dtype_on(self.device.torch_device, settings.sampling.decoding.precision)
        self.unet, self.autoencoder = base.unet(), base.autoencoder()
        if "delta" in context.inputs:
            load_delta(context.inputs["delta"].file(DELTA_FILE), self.unet, base.unet_sha256)
        round_frozen_weights(self.unet, self.device.dtype)
        round_frozen_weights(self.autoencoder, self.decoding_dtype)
        self.unet.to(self.device.torch_device)
        set_kernels(self.unet, settings.sampling.kernels)
        self.autoencoder.to(self.device.torch_device)
        self.scheduler = base.scheduler(**settings.sampling.scheduler.switches)
        self.embeddings = EmbeddingCache.of_run(context.inputs["embeddings"])

    def sample(self, images: list[SampleKey]) -> Tensor:
        """Sample a batch, (len(images), 3, side, side) on the CPU; a batch that is not full is padded meanwhile."""
        padding = [images[-1]] * (self.settings.sampling.batch - len(images))
        return self.images_of(images + padding)[: len(images)]

    @torch.inference_mode()
    def images_of(self, images: list[SampleKey]) -> Tensor:
        """Sample the images of (style, object, seed), (n, 3, side, side) on the CPU; black is 0 and white is 1."""
        settings, wording = self.settings.sampling, self.settings.wording
        prompts = [wording.prompt(style, object_) for style, object_, _ in images]
        conditioned = self.embeddings.of(prompts).to(self.device.torch_device)
        unconditioned = self.embeddings.of([settings.negative_prompt] * len(images)).to(self.device.torch_device)
        self.scheduler.set_timesteps(settings.scheduler.steps)
        first, latents = self._start(images)
        latents = latents.to(self.device.torch_device)
        timesteps = self.scheduler.timesteps.to(self.device.torch_device)
        # The scheduler's numbers stay on the CPU: a step would wait for the GPU to read them from there.
        for step, timestep in enumerate(self.scheduler.timesteps.tolist()[first:], start=first):
            begin_step(settings.kernels)
            noise = self._predict_guided(latents, timesteps[step], conditioned, unconditioned, settings)
            latents = self.scheduler.step(
                noise,
                timestep,
                latents,
                eta=settings.scheduler.eta,
                variance_noise=self._draw_variance_noise(images, step),
            ).prev_sample
        return (self._decode(latents / self.autoencoder.config["scaling_factor"]) / 2 + 0.5).cpu()

    def _start(self, images: list[SampleKey]) -> tuple[int, Tensor]:
        """The first step that is taken, and the latents before it, (len(images), c, h, w) on the CPU."""
        return 0, initial_noise(images, self._latent_shape()) * self.scheduler.init_noise_sigma

    def _decode(self, latents: Tensor) -> Tensor:
        """The images of latents, (n, 3, side, side) in [-1, 1], a few at a time."""
        is_rounded = self.decoding_dtype != torch.float32
        with torch.autocast(self.device.torch_device.type, dtype=self.decoding_dtype, enabled=is_rounded):
            parts = latents.split(self.settings.sampling.decoding.batch)
            return torch.cat([self.autoencoder.decode(part).sample.float() for part in parts])

    def _predict_guided(
        self, latents: Tensor, timestep: Tensor, conditioned: Tensor, unconditioned: Tensor, settings: Sampling
    ) -> Tensor:
        """e_0 + s (e_p - e_0), with e_0 and e_p from one doubled batch."""
        if settings.guidance_scale == 1:
            return self._predict(latents, timestep, conditioned)
        both = self._predict(torch.cat([latents, latents]), timestep, torch.cat([unconditioned, conditioned]))
        return apply_guidance(both, settings.guidance_scale)

    def _predict(self, latents: Tensor, timestep: Tensor, prompts: Tensor) -> Tensor:
        latents = self.scheduler.scale_model_input(latents, timestep)
        with self.device.autocast():
            predicted: Tensor = self.unet(latents, timestep, encoder_hidden_states=prompts).sample
        return predicted.float()

    def _draw_variance_noise(self, images: list[SampleKey], step: int) -> Tensor | None:
        if self.settings.sampling.scheduler.eta == 0:
            return None
        return initial_noise(images, self._latent_shape(), "step", step).to(self.device.torch_device)

    def _latent_shape(self) -> tuple[int, int, int]:
        config: Any = self.autoencoder.config
        side = self.settings.sampling.resolution // 2 ** (len(config["block_out_channels"]) - 1)
        return config["latent_channels"], side, side


def initial_noise(images: list[SampleKey], shape: tuple[int, ...], *address: str | int) -> Tensor:
    """Standard Gaussian noise of each image, (n, c, h, w): a function of seed, style, object and `address` alone."""
    return torch.stack(
        [
            torch.randn(shape, generator=generator("image", seed, style, object_, *address))
            for style, object_, seed in images
        ]
    )
