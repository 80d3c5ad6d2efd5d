"""Partial diffusion: sampling starts from noised images of the forgotten styles instead of pure noise.

A method may unlearn only the first steps of sampling, which choose a style from the prompt. A noised image of the style
skips them; the model then finishes the image, in the style or in another.
"""

from __future__ import annotations

import torch
from torch import Tensor

from corelib.data.latents import LatentCache
from corelib.data.slices import Pair
from corelib.runs.progress import Progress
from corelib.runs.stage_context import StageContext, StageResult
from corelib.sampling.collection import gather_samples, is_complete
from corelib.sampling.grid import BATCHES, IMAGES, SampleKey, record_path, split_into_batches
from corelib.sampling.sampler import Sampler, initial_noise
from corelib.settings.probes import ResampledStage


def resample(settings: ResampledStage, context: StageContext) -> StageResult:
    """Stage: restore every image of the grid from a noised real image; complete batches are not restored again.

    Raises as the sampling of the stage `samples` does.
    """
    batches = split_into_batches(settings.samples)
    missing = [
        number
        for number in range(len(batches))
        if not is_complete(context.folder / record_path(number), context.trained)
    ]
    if missing:
        sampler = NoisedImageSampler(settings, context)
        progress = Progress("batches", len(missing))
        for done, number in enumerate(missing, start=1):
            sampler.sample(number, batches[number])
            progress.report(done)
    return StageResult([IMAGES, BATCHES], gather_samples(settings.samples, context).facts)


def steps_taken(level: float, steps: int) -> int:
    """Number of sampling steps from a noise level on: the share `level` of all steps, at least one."""
    return max(1, round(level * steps))


class NoisedImageSampler(Sampler):
    """Samples as `Sampler` does, but takes only the last steps, from real images with the noise of the first of them.

    The noise of an image is that from which `Sampler` starts.
    """

    def __init__(self, settings: ResampledStage, context: StageContext) -> None:
        super().__init__(settings.samples, context)
        self._latents = LatentCache.of_run(context.inputs["latents"])
        self._sources = dict(zip(settings.samples.grid, settings.sources, strict=True))
        self._level = settings.level

    @torch.no_grad()
    def images_of(self, images: list[SampleKey]) -> Tensor:
        """Restore the images of (style, object, seed), (n, 3, side, side) on the CPU; black is 0 and white is 1."""
        sampling, wording, device = self.settings.sampling, self.settings.wording, self.device.torch_device
        prompts = [wording.prompt(style, object_) for style, object_, _ in images]
        conditioned = self.embeddings.of(prompts).to(device)
        unconditioned = self.embeddings.of([sampling.negative_prompt] * len(images)).to(device)
        self.scheduler.set_timesteps(sampling.scheduler.steps, device=device)
        first = sampling.scheduler.steps - steps_taken(self._level, sampling.scheduler.steps)
        latents = self._noised(images, int(self.scheduler.timesteps[first])).to(device)
        for step, timestep in enumerate(self.scheduler.timesteps[first:], start=first):
            noise = self._predict_guided(latents, timestep, conditioned, unconditioned, sampling)
            latents = self.scheduler.step(
                noise,
                timestep,
                latents,
                eta=sampling.scheduler.eta,
                variance_noise=self._draw_variance_noise(images, step),
            ).prev_sample
        decoded = self.autoencoder.decode(latents / self.autoencoder.config["scaling_factor"]).sample
        return (decoded / 2 + 0.5).cpu()

    def _noised(self, images: list[SampleKey], timestep: int) -> Tensor:
        """x_t of the real images behind some images of the grid, (n, c, h, w): means of their latents, with noise."""
        sources = [Pair(*self._sources[image]) for image in images]
        clean = self._latents.draw(sources, torch.zeros(len(sources), *self._latents.shape))
        alpha_bar = self.scheduler.alphas_cumprod[timestep]
        return alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * initial_noise(images, tuple(clean.shape[1:]))
