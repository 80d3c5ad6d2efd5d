"""Sampling: DDIM with classifier-free guidance, from addressed noise, in addressed batches.

Image i of a run's grid is always in batch i // B and slot i % B, and the last batch is padded, so neither the number of
shards nor an interruption changes what is computed together, and no bit of any image.
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
from corelib.files.atomic import written_whole
from corelib.files.hashing import sha256_of
from corelib.files.paths import below
from corelib.files.sealed_json import write_record
from corelib.models.base_model import BaseModel
from corelib.models.delta import DELTA, load_delta
from corelib.models.device import Device
from corelib.models.guidance import guided
from corelib.randomness import generator
from corelib.runs.progress import Progress
from corelib.runs.stage import Outcome, Work
from corelib.sampling.batch_record import BatchRecord
from corelib.sampling.collection import is_whole
from corelib.sampling.grid import IMAGES, batches_of, image_name, record_path
from corelib.settings.sampling import DDIM, SamplesStage, Sampling

log = logging.getLogger(__name__)


def sample_shard(settings: SamplesStage, work: Work, shard: int, shards: int) -> Outcome:
    """Stage: sample one of `shards` shares of a run's batches; batches that lie there whole are not sampled again.

    In an unlearned model's images, constant or non-finite ones are flagged; in the original model's they are an
    `ArtefactError`.
    """
    batches = batches_of(settings)
    mine = list(range(shard, len(batches), shards))
    missing = [number for number in mine if not is_whole(work.folder / record_path(number), work.trained)]
    log.info("%d of %d batches are to be sampled", len(missing), len(mine))
    if missing:
        sampler = Sampler(settings, work)
        progress = Progress("batches", len(missing))
        for done, number in enumerate(missing, start=1):
            sampler.sample(number, batches[number])
            progress.report(done)
    return Outcome([str(record_path(number)) for number in mine])


class Sampler:
    """One model, ready to sample batches of its run."""

    def __init__(self, settings: SamplesStage, work: Work) -> None:
        base = BaseModel(work.inputs["pipeline"])
        self.settings = settings
        self.folder, self.trained = work.folder, work.trained
        self.device = Device(settings.sampling.precision, work.threads)
        self.unet = base.unet()
        self.is_original = "delta" not in work.inputs
        if not self.is_original:
            load_delta(work.inputs["delta"].file(DELTA), self.unet, base.identity)
        self.unet.to(self.device.torch_device)
        self.autoencoder = base.autoencoder().to(self.device.torch_device)
        self.scheduler = base.scheduler(**scheduler_switches(settings.sampling.scheduler))
        self.embeddings = EmbeddingCache(work.inputs["embeddings"])

    def sample(self, number: int, images: list[tuple[str, str, int]]) -> None:
        """Sample a batch, write its images, and last its record."""
        size = self.settings.sampling.batch
        padded = images + [images[-1]] * (size - len(images))
        sampled = self.images_of(padded)[: len(images)]
        flagged = []
        hashes = {}
        for image, values in zip(images, sampled, strict=True):
            name = image_name(*image)
            pixels = as_pixels(values)
            if not torch.isfinite(values).all() or (pixels == pixels[0, 0]).all():
                flagged.append(name)
            path = below(self.folder, f"{IMAGES}/{name}")
            with written_whole(path) as temporary:
                Image.fromarray(pixels).save(temporary, format="JPEG", quality=self.settings.sampling.jpeg_quality)
            hashes[name] = sha256_of(path)
        if flagged and self.is_original:
            raise ArtefactError(
                f"{self.folder / IMAGES / flagged[0]}: the original model sampled a constant or non-finite image, "
                "expected a picture; check the base model and `sampling.precision`."
            )
        record = BatchRecord.sealed(images=hashes, flagged=flagged, trained=dict(self.trained))
        write_record(self.folder / record_path(number), record)

    @torch.no_grad()
    def images_of(self, images: list[tuple[str, str, int]]) -> Tensor:
        """The images of some (style, object, seed), (n, 3, side, side), black at 0 and white at 1, on the CPU."""
        settings, wording = self.settings.sampling, self.settings.wording
        asked = [wording.prompt(style, object_) for style, object_, _ in images]
        conditioned = self.embeddings.of(asked).to(self.device.torch_device)
        unconditioned = self.embeddings.of([settings.negative_prompt] * len(images)).to(self.device.torch_device)
        latents = initial_noise(images, self._latent_shape()).to(self.device.torch_device)
        latents = latents * self.scheduler.init_noise_sigma
        self.scheduler.set_timesteps(settings.scheduler.steps, device=self.device.torch_device)
        for number, timestep in enumerate(self.scheduler.timesteps):
            noise = self._guided(latents, timestep, conditioned, unconditioned, settings)
            latents = self.scheduler.step(
                noise,
                timestep,
                latents,
                eta=settings.scheduler.eta,
                variance_noise=self._variance_noise(images, number),
            ).prev_sample
        decoded = self.autoencoder.decode(latents / self.autoencoder.config["scaling_factor"]).sample
        return (decoded / 2 + 0.5).cpu()

    def _guided(
        self, latents: Tensor, timestep: Tensor, conditioned: Tensor, unconditioned: Tensor, settings: Sampling
    ) -> Tensor:
        """e_0 + s (e_p - e_0), with both predictions from one doubled batch."""
        if settings.guidance_scale == 1:
            return self._predicted(latents, timestep, conditioned)
        both = self._predicted(torch.cat([latents, latents]), timestep, torch.cat([unconditioned, conditioned]))
        return guided(both, settings.guidance_scale)

    def _predicted(self, latents: Tensor, timestep: Tensor, prompts: Tensor) -> Tensor:
        latents = self.scheduler.scale_model_input(latents, timestep)
        with self.device.autocast():
            predicted: Tensor = self.unet(latents, timestep, encoder_hidden_states=prompts).sample
        return predicted.float()

    def _variance_noise(self, images: list[tuple[str, str, int]], step: int) -> Tensor | None:
        if self.settings.sampling.scheduler.eta == 0:
            return None
        return initial_noise(images, self._latent_shape(), "step", step).to(self.device.torch_device)

    def _latent_shape(self) -> tuple[int, int, int]:
        config: Any = self.autoencoder.config
        side = self.settings.sampling.resolution // 2 ** (len(config["block_out_channels"]) - 1)
        return config["latent_channels"], side, side


def scheduler_switches(settings: DDIM) -> dict[str, Any]:
    """The scheduler's configuration keys that a study decides; the number of steps and eta are given when sampling."""
    return settings.model_dump(exclude={"steps", "eta"})


def initial_noise(images: list[tuple[str, str, int]], shape: tuple[int, ...], *address: str | int) -> Tensor:
    """Standard Gaussian noise of each image, (n, c, h, w): a function of its seed, style and object alone."""
    return torch.stack(
        [
            torch.randn(shape, generator=generator("image", seed, style, object_, *address))
            for style, object_, seed in images
        ]
    )


def as_pixels(values: Tensor) -> NDArray[np.uint8]:
    """An image (3, side, side), black at 0 and white at 1, as (side, side, 3) in 8 bits; not finite is black."""
    finite = torch.where(torch.isfinite(values), values, 0.0)
    return (finite.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
