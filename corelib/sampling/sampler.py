"""Sampling: DDIM with classifier-free guidance, from addressed noise, in addressed batches.

Image i of a run's grid is always in slot i % B of batch i // B, and the last batch is padded. Neither the number of
shards nor an interruption changes which images are computed together, so no bit of any image changes.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from corelib.data.embeddings import EmbeddingCache
from corelib.errors import ArtefactError
from corelib.files.atomic import atomic_write
from corelib.files.hashing import sha256_of_path
from corelib.files.paths import path_inside
from corelib.files.sealed_json import write_record
from corelib.models.base_model import BaseModel
from corelib.models.delta import DELTA_FILE, load_delta
from corelib.models.device import Device
from corelib.models.guidance import apply_guidance
from corelib.randomness import generator
from corelib.runs.progress import Progress
from corelib.runs.stage_context import StageContext, StageResult
from corelib.sampling.batch_record import BatchRecord
from corelib.sampling.collection import is_complete
from corelib.sampling.grid import IMAGES, image_name, record_path, split_into_batches
from corelib.settings.sampling import SamplesStage, Sampling

log = logging.getLogger(__name__)


def sample_shard(settings: SamplesStage, context: StageContext, shard: int, shards: int) -> StageResult:
    """Stage: sample every `shards`-th batch of a run, from number `shard` on; complete batches are not sampled again.

    Constant or non-finite images of an unlearned model are flagged. Raises `ArtefactError` if the original model
    samples one.
    """
    batches = split_into_batches(settings)
    numbers = list(range(shard, len(batches), shards))
    missing = [number for number in numbers if not is_complete(context.folder / record_path(number), context.trained)]
    log.info("sampling %d of %d batches; the others are complete", len(missing), len(numbers))
    if missing:
        sampler = Sampler(settings, context)
        progress = Progress("batches", len(missing))
        for done, number in enumerate(missing, start=1):
            sampler.sample(number, batches[number])
            progress.report(done)
    return StageResult([str(record_path(number)) for number in numbers])


class Sampler:
    """Samples batches of a run with its model."""

    def __init__(self, settings: SamplesStage, context: StageContext) -> None:
        base = BaseModel(context.inputs["pipeline"])
        self.settings = settings
        self.folder, self.trained = context.folder, context.trained
        self.device = Device(settings.sampling.precision, context.threads)
        self.unet = base.unet()
        self.is_original = "delta" not in context.inputs
        if not self.is_original:
            load_delta(context.inputs["delta"].file(DELTA_FILE), self.unet, base.unet_sha256)
        self.unet.to(self.device.torch_device)
        self.autoencoder = base.autoencoder().to(self.device.torch_device)
        self.scheduler = base.scheduler(**settings.sampling.scheduler.switches)
        self.embeddings = EmbeddingCache.of_run(context.inputs["embeddings"])

    def sample(self, number: int, images: list[tuple[str, str, int]]) -> None:
        """Sample a batch, write its images and then its record."""
        size = self.settings.sampling.batch
        padded = images + [images[-1]] * (size - len(images))
        sampled = self.images_of(padded)[: len(images)]
        flagged = []
        hashes = {}
        for image, values in zip(images, sampled, strict=True):
            name = image_name(*image)
            pixels = to_pixels(values)
            if not torch.isfinite(values).all() or (pixels == pixels[0, 0]).all():
                flagged.append(name)
            path = path_inside(self.folder, f"{IMAGES}/{name}")
            with atomic_write(path) as temporary:
                Image.fromarray(pixels).save(temporary, format="JPEG", quality=self.settings.sampling.jpeg_quality)
            hashes[name] = sha256_of_path(path)
        if flagged and self.is_original:
            raise ArtefactError(
                f"{self.folder / IMAGES / flagged[0]}: the original model sampled a constant or non-finite image; "
                "check the base model and `sampling.precision`."
            )
        record = BatchRecord.sealed(images=hashes, flagged=flagged, trained=dict(self.trained))
        write_record(self.folder / record_path(number), record)

    @torch.no_grad()
    def images_of(self, images: list[tuple[str, str, int]]) -> Tensor:
        """Sample the images of (style, object, seed), (n, 3, side, side) on the CPU; black is 0 and white is 1."""
        settings, wording = self.settings.sampling, self.settings.wording
        prompts = [wording.prompt(style, object_) for style, object_, _ in images]
        conditioned = self.embeddings.of(prompts).to(self.device.torch_device)
        unconditioned = self.embeddings.of([settings.negative_prompt] * len(images)).to(self.device.torch_device)
        latents = initial_noise(images, self._latent_shape()).to(self.device.torch_device)
        latents = latents * self.scheduler.init_noise_sigma
        self.scheduler.set_timesteps(settings.scheduler.steps, device=self.device.torch_device)
        for step, timestep in enumerate(self.scheduler.timesteps):
            noise = self._predict_guided(latents, timestep, conditioned, unconditioned, settings)
            latents = self.scheduler.step(
                noise,
                timestep,
                latents,
                eta=settings.scheduler.eta,
                variance_noise=self._draw_variance_noise(images, step),
            ).prev_sample
        decoded = self.autoencoder.decode(latents / self.autoencoder.config["scaling_factor"]).sample
        return (decoded / 2 + 0.5).cpu()

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

    def _draw_variance_noise(self, images: list[tuple[str, str, int]], step: int) -> Tensor | None:
        if self.settings.sampling.scheduler.eta == 0:
            return None
        return initial_noise(images, self._latent_shape(), "step", step).to(self.device.torch_device)

    def _latent_shape(self) -> tuple[int, int, int]:
        config: Any = self.autoencoder.config
        side = self.settings.sampling.resolution // 2 ** (len(config["block_out_channels"]) - 1)
        return config["latent_channels"], side, side


def initial_noise(images: list[tuple[str, str, int]], shape: tuple[int, ...], *address: str | int) -> Tensor:
    """Standard Gaussian noise of each image, (n, c, h, w): a function of seed, style, object and `address` alone."""
    return torch.stack(
        [
            torch.randn(shape, generator=generator("image", seed, style, object_, *address))
            for style, object_, seed in images
        ]
    )


def to_pixels(values: Tensor) -> NDArray[np.uint8]:
    """Convert an image (3, side, side), black 0 and white 1, to (side, side, 3) in 8 bits; non-finite is black."""
    finite = torch.where(torch.isfinite(values), values, 0.0)
    return (finite.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
