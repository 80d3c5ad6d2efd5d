"""A model's own images, sampled part of the way: the x_t on which ESD's released code trains."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from corelib.models.guidance import guided
from corelib.randomness import generator
from corelib.settings.unlearning import SampledImages
from corelib.unlearning.objective import NoisePredictor


class Trajectories:
    """The way from noise to image that a noise predictor takes by DDIM, without leaving gradients behind.

    Args:
        predictor: eps_theta.
        scheduler: DDIM over the base model's noise schedule.
        unconditioned: gives so many embeddings of the empty prompt.
    """

    def __init__(
        self, predictor: NoisePredictor, scheduler: DDIMScheduler, unconditioned: Callable[[int], Tensor]
    ) -> None:
        self._predictor = predictor
        self._scheduler = scheduler
        self._unconditioned = unconditioned

    @torch.no_grad()
    def part_way(
        self, images: SampledImages, noise: Tensor, prompts: Tensor, address: tuple[str | int, ...]
    ) -> tuple[Tensor, Tensor]:
        """x_t at one noise level, drawn among those of the steps, and a timestep t for each image between it and the
        next.

        Args:
            images: how they are sampled.
            noise: x_T, (batch, c, h, w).
            prompts: embeddings, (batch, tokens, width).
            address: names the draws of the noise level and of t.
        """
        levels = images.steps
        level = int(torch.randint(levels, (1,), generator=generator(*address, "level")))
        self._scheduler.set_timesteps(levels)
        noisy = noise
        for timestep in self._scheduler.timesteps[: levels - 1 - level].tolist():
            predicted = self._guided(noisy, timestep, prompts, images.guidance_scale)
            noisy = self._scheduler.step(predicted, timestep, noisy).prev_sample
        count = self._scheduler.config["num_train_timesteps"]
        first, beyond = level * count // levels, (level + 1) * count // levels
        timesteps = torch.randint(first, beyond, (len(noise),), generator=generator(*address, "timesteps"))
        return noisy, timesteps.to(noise.device)

    def _guided(self, noisy: Tensor, timestep: int, prompts: Tensor, scale: float) -> Tensor:
        """e_0 + s (e_p - e_0) from one doubled batch."""
        timesteps = torch.full((2 * len(noisy),), timestep, device=noisy.device)
        both = torch.cat([self._unconditioned(len(noisy)), prompts])
        return guided(self._predictor(noisy.repeat(2, 1, 1, 1), timesteps, both), scale)
