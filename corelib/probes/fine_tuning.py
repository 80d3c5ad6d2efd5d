"""A short training on a few images by equation 1 of the paper, shared by relearning and concept inversion.

A step is a function of (seed, step) and of the trained tensors alone, so an interrupted run resumes to the same bits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from corelib.data.latents import LatentCache
from corelib.data.slices import Pair
from corelib.randomness import generator
from corelib.runs.checkpoint import Checkpoint, restore_optimizer, restore_tensors
from corelib.runs.progress import Progress
from corelib.runs.stage_context import StageContext
from corelib.settings.probes import FineTuning, ImageKey

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NoisyImages:
    """Images with noise.

    Attributes:
        noisy: x_t, (n, c, h, w).
        timesteps: t, (n,).
        noise: the noise in x_t, (n, c, h, w).
    """

    noisy: Tensor
    timesteps: Tensor
    noise: Tensor

    def to(self, device: torch.device) -> NoisyImages:
        """The same images on a device."""
        return NoisyImages(self.noisy.to(device), self.timesteps.to(device), self.noise.to(device))


def noisy_images(
    latents: LatentCache, images: Sequence[ImageKey], alphas_cumprod: Tensor, address: tuple[str | int, ...]
) -> NoisyImages:
    """Noisy versions of real images, as equation 1 trains on them.

    Args:
        latents: latents of the images.
        images: the images.
        alphas_cumprod: the base model's noise schedule, (timesteps,).
        address: names the draws of t, noise and latents.
    """
    shape = (len(images), *latents.shape)
    noise = torch.randn(shape, generator=generator(*address, "noise"))
    posterior_noise = torch.randn(shape, generator=generator(*address, "posterior"))
    timesteps = torch.randint(len(alphas_cumprod), (len(images),), generator=generator(*address, "timesteps"))
    alphas = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    clean = latents.draw([Pair(*image) for image in images], posterior_noise)
    return NoisyImages(alphas.sqrt() * clean + (1 - alphas).sqrt() * noise, timesteps, noise)


def fine_tune(
    settings: FineTuning,
    parameters: Mapping[str, Tensor],
    losses_at: Callable[[int], Iterable[Tensor]],
    context: StageContext,
) -> int | None:
    """Train some tensors with Adam, and resume from the checkpoint of an earlier attempt.

    Returns the step whose loss or gradient was not finite; None if there is none. The tensors are those before it.

    Args:
        settings: number of steps, and the optimiser.
        parameters: the trained tensors, by name.
        losses_at: the losses of a step, whose sum is minimised. Each is computed after the gradient of the one before
            it, so that only one has to fit into memory.
        context: the job's context, which has the checkpoint.
    """
    optimizer = torch.optim.Adam(
        parameters.values(),
        lr=settings.learning_rate,
        betas=(settings.optimizer.betas[0], settings.optimizer.betas[1]),
        eps=settings.optimizer.epsilon,
        weight_decay=settings.optimizer.weight_decay,
    )
    checkpoint = Checkpoint(context.checkpoint, context.owner, context.checkpoint_seconds)
    first_step = _resume(checkpoint, parameters, optimizer)
    progress = Progress("steps", settings.steps, first_step)
    with checkpoint.defer_signals():
        for step in range(first_step, settings.steps):
            optimizer.zero_grad(set_to_none=True)
            total = 0.0
            for loss in losses_at(step):
                loss.backward()
                total += loss.item()
            norm = torch.nn.utils.get_total_norm(
                [tensor.grad for tensor in parameters.values() if tensor.grad is not None]
            )
            if not torch.isfinite(norm + total):
                log.warning("loss or gradient is not finite at step %d: the training diverged", step)
                return step
            optimizer.step()
            progress.report(step + 1, total)
            checkpoint.save_if_due(lambda done=step + 1: _state(done, parameters, optimizer))  # type: ignore[misc]
    checkpoint.save(_state(settings.steps, parameters, optimizer))
    return None


def _state(step: int, parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, object]:
    trained = {name: tensor.detach() for name, tensor in parameters.items()}
    return {"step": step, "trained": trained, "optimizer": optimizer.state_dict()}


def _resume(checkpoint: Checkpoint, parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> int:
    """Restore the state of an earlier attempt, if there is one; return the step to resume from."""
    state = checkpoint.load()
    if state is None:
        return 0
    with checkpoint.restoring():
        step = int(state["step"])
        restore_tensors(parameters, state["trained"])
        restore_optimizer(optimizer, state["optimizer"])
    log.info("resuming from step %d", step)
    return step
