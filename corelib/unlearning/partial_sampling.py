"""Partial sampling by the model in training: the x_t on which ESD's released code trains."""

from __future__ import annotations

from dataclasses import replace

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from corelib.models.guidance import apply_guidance
from corelib.randomness import generator
from corelib.settings.objective import SampledImages
from corelib.unlearning.objective import Batch, NoisePredictor


def draw_noise_level(
    images: SampledImages, num_timesteps: int, count: int, address: tuple[str | int, ...]
) -> tuple[int, Tensor]:
    """Draw the noise level at which sampling stops, among those of the steps.

    Returns the level, and for each image a timestep t drawn between that level and the next, (count,).

    Args:
        images: number of steps of the sampling.
        num_timesteps: number of timesteps of the noise schedule.
        count: number of images.
        address: names the draws.
    """
    levels = images.steps
    level = int(torch.randint(levels, (1,), generator=generator(*address, "level")))
    first, end = level * num_timesteps // levels, (level + 1) * num_timesteps // levels
    return level, torch.randint(first, end, (count,), generator=generator(*address, "timesteps"))


class PartialSampler:
    """DDIM trajectories of a noise predictor, computed without gradients.

    Args:
        images: number of steps and guidance of the sampling.
        predictor: eps_theta.
        scheduler: DDIM over the base model's noise schedule.
        empty_prompts: embeddings of the empty prompt, one for each image of a batch, (batch, tokens, width).
    """

    def __init__(
        self, images: SampledImages, predictor: NoisePredictor, scheduler: DDIMScheduler, empty_prompts: Tensor
    ) -> None:
        self._images = images
        self._predictor = predictor
        self._scheduler = scheduler
        self._empty_prompts = empty_prompts

    def complete(self, batch: Batch) -> Batch:
        """The batch with the x_t of its forget pairs, sampled down to its level."""
        assert batch.level is not None
        noisy = self.sample_until(batch.level, batch.forget.noisy, batch.forget.own)
        return Batch(replace(batch.forget, noisy=noisy), batch.retain)

    @torch.no_grad()
    def sample_until(self, level: int, noise: Tensor, prompts: Tensor) -> Tensor:
        """Sample x_t down to a noise level, (batch, c, h, w).

        Args:
            level: the noise level (`draw_noise_level`).
            noise: x_T, (batch, c, h, w).
            prompts: embeddings, (batch, tokens, width).
        """
        levels = self._images.steps
        self._scheduler.set_timesteps(levels)
        noisy = noise
        for timestep in self._scheduler.timesteps[: levels - 1 - level].tolist():
            predicted = self._predict_guided(noisy, timestep, prompts)
            noisy = self._scheduler.step(predicted, timestep, noisy).prev_sample
        return noisy

    def _predict_guided(self, noisy: Tensor, timestep: int, prompts: Tensor) -> Tensor:
        """e_0 + s (e_p - e_0), with e_0 and e_p from one doubled batch."""
        timesteps = torch.full((2 * len(noisy),), timestep, device=noisy.device)
        doubled_prompts = torch.cat([self._empty_prompts, prompts])
        predicted = self._predictor(noisy.repeat(2, 1, 1, 1), timesteps, doubled_prompts)
        return apply_guidance(predicted, self._images.guidance_scale)
