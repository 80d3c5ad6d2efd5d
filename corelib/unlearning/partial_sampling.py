"""Partial sampling by the model in training: the x_t on which ESD's released code trains."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from corelib.models.guidance import apply_guidance
from corelib.randomness import generator
from corelib.settings.objective import SampledImages
from corelib.unlearning.objective import NoisePredictor


class PartialSampler:
    """DDIM trajectories of a noise predictor, computed without gradients.

    Args:
        predictor: eps_theta.
        scheduler: DDIM over the base model's noise schedule.
        unconditioned: returns the given number of embeddings of the empty prompt.
    """

    def __init__(
        self, predictor: NoisePredictor, scheduler: DDIMScheduler, unconditioned: Callable[[int], Tensor]
    ) -> None:
        self._predictor = predictor
        self._scheduler = scheduler
        self._unconditioned = unconditioned

    @torch.no_grad()
    def sample_until(
        self, images: SampledImages, noise: Tensor, prompts: Tensor, address: tuple[str | int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Sample x_t down to a noise level drawn among those of the steps.

        Returns x_t, (batch, c, h, w), and for each image a timestep t drawn between that level and the next, (batch,).

        Args:
            images: number of steps and guidance of the sampling.
            noise: x_T, (batch, c, h, w).
            prompts: embeddings, (batch, tokens, width).
            address: names the draws of the noise level and of t.
        """
        levels = images.steps
        level = int(torch.randint(levels, (1,), generator=generator(*address, "level")))
        self._scheduler.set_timesteps(levels)
        noisy = noise
        for timestep in self._scheduler.timesteps[: levels - 1 - level].tolist():
            predicted = self._predict_guided(noisy, timestep, prompts, images.guidance_scale)
            noisy = self._scheduler.step(predicted, timestep, noisy).prev_sample
        num_timesteps = self._scheduler.config["num_train_timesteps"]
        first, end = level * num_timesteps // levels, (level + 1) * num_timesteps // levels
        timesteps = torch.randint(first, end, (len(noise),), generator=generator(*address, "timesteps"))
        return noisy, timesteps.to(noise.device)

    def _predict_guided(self, noisy: Tensor, timestep: int, prompts: Tensor, scale: float) -> Tensor:
        """e_0 + s (e_p - e_0), with e_0 and e_p from one doubled batch."""
        timesteps = torch.full((2 * len(noisy),), timestep, device=noisy.device)
        doubled_prompts = torch.cat([self._unconditioned(len(noisy)), prompts])
        return apply_guidance(self._predictor(noisy.repeat(2, 1, 1, 1), timesteps, doubled_prompts), scale)
