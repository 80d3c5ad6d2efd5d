"""Partial diffusion: sampling starts from noised images of the forgotten styles instead of pure noise.

A method may unlearn only the first steps of sampling, which choose a style from the prompt. A noised image of the style
skips them; the model then finishes the image, in the style or in another.
"""

from __future__ import annotations

import torch
from torch import Tensor

from corelib.data.latents import LatentCache
from corelib.data.slices import Pair
from corelib.runs.stage_context import StageContext, StageResult
from corelib.sampling.collection import gather_samples
from corelib.sampling.grid import BATCHES, IMAGES, SampleKey, split_into_batches
from corelib.sampling.sampler import Sampler, initial_noise, sample_batches
from corelib.settings.probes import ResampledStage


def resample(settings: ResampledStage, context: StageContext) -> StageResult:
    """Stage: restore every image of the grid from a noised real image; complete batches are not restored again.

    Raises as the sampling of the stage `samples` does.
    """
    numbers = range(len(split_into_batches(settings.samples)))
    sample_batches(settings.samples, context, numbers, lambda: NoisedImageSampler(settings, context))
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

    def _start(self, images: list[SampleKey]) -> tuple[int, Tensor]:
        """The first of the last steps, and the noised real images, (len(images), c, h, w) on the CPU."""
        steps = self.settings.sampling.scheduler.steps
        first = steps - steps_taken(self._level, steps)
        return first, self._noised(images, int(self.scheduler.timesteps[first]))

    def _noised(self, images: list[SampleKey], timestep: int) -> Tensor:
        """x_t of the real images behind some images of the grid, (n, c, h, w): means of their latents, with noise."""
        sources = [Pair(*self._sources[image]) for image in images]
        clean = self._latents.draw(sources, torch.zeros(len(sources), *self._latents.shape))
        alpha_bar = self.scheduler.alphas_cumprod[timestep]
        return alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * initial_noise(images, tuple(clean.shape[1:]))
