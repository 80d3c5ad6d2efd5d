"""Training loop shared by the miniature's autoencoder, denoiser and classifiers.

The draws of a step are a function of (seed, purpose, step), so a resumed training reaches the same bits as an
uninterrupted one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from corelib.errors import ArtefactError, UserError
from corelib.files.image_files import read_image
from corelib.randomness import generator, seed_of
from corelib.runs.checkpoint import Checkpoint, restore_optimizer
from corelib.runs.progress import Progress
from corelib.runs.stage_context import StageContext
from corelib.settings.miniature import Training

log = logging.getLogger(__name__)

MAX_GRADIENT_NORM = 1.0  # maximum, to which gradients are clipped

LOSS_DECAY = 0.98  # decay of the reported moving average of the loss


@dataclass(frozen=True)
class WorldImages:
    """All images of a rendered world, in the order of their paths.

    Attributes:
        pixels: (images, 3, height, width), uint8.
        styles: the style of each image.
        objects: the object of each image.
        indices: the 1-based index of each image in its cell.
    """

    pixels: Tensor
    styles: list[str]
    objects: list[str]
    indices: list[int]


def load_world_images(folder: Path) -> WorldImages:
    """Read every `STYLE/OBJECT/INDEX.jpg` below `folder`.

    Raises `ArtefactError` if there are no images, or if they differ in size.
    """
    paths = sorted(folder.glob("*/*/*.jpg"), key=lambda path: (path.parent, int(path.stem)))
    if not paths:
        raise ArtefactError(f"{folder}: no images, expected STYLE/OBJECT/INDEX.jpg below it.")
    arrays = []
    for path in paths:
        arrays.append(np.asarray(read_image(path)))
        if arrays[-1].shape != arrays[0].shape:
            raise ArtefactError(
                f"{path}: {arrays[-1].shape[1]} x {arrays[-1].shape[0]} pixels, expected "
                f"{arrays[0].shape[1]} x {arrays[0].shape[0]} as in {paths[0]}."
            )
    return WorldImages(
        pixels=torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous(),
        styles=[path.parent.parent.name for path in paths],
        objects=[path.parent.name for path in paths],
        indices=[int(path.stem) for path in paths],
    )


def to_model_range(pixels: Tensor) -> Tensor:
    """Convert uint8 pixels to floats from -1 to 1, as `ToTensor` and `Normalize(0.5, 0.5)` do."""
    return pixels.float() / 127.5 - 1


@contextmanager
def seeded_initialisation(*address: str | int) -> Iterator[None]:
    """Make initial weights of modules built in the block a function of `address`; torch's own stream is preserved."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(*address))
        yield


def draw_batch(seed: int, step: int, images: int, batch: int) -> Tensor:
    """Indices, (batch,), of the images that a step uses, drawn with replacement from `images` images."""
    return torch.randint(images, (batch,), generator=generator(seed, "batch", step))


class MovingAverage:
    """Exponential moving average of a module's parameters, with a decay of at most (1 + step) / (10 + step)."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = list(module.parameters())
        self.values = [parameter.detach().clone() for parameter in self._parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the averages with the parameters after step `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for value, parameter in zip(self.values, self._parameters, strict=True):
            value.lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def load(self, values: list[Tensor]) -> None:
        """Resume from saved values. Raises `ValueError` if their shapes differ from those of the parameters."""
        for value, saved in zip(self.values, values, strict=True):
            if value.shape != saved.shape:
                raise ValueError(f"an average has shape {tuple(saved.shape)}, expected {tuple(value.shape)}")
            value.copy_(saved)

    @torch.no_grad()
    def copy_to_module(self) -> None:
        """Copy the averages into the module's parameters."""
        for value, parameter in zip(self.values, self._parameters, strict=True):
            parameter.copy_(value)


def train(
    name: str,
    module: nn.Module,
    training: Training,
    loss_at: Callable[[int], Tensor],
    context: StageContext,
    average: MovingAverage | None = None,
) -> float:
    """Minimise `loss_at(step)` over the parameters of `module` with Adam, resuming an earlier attempt of the same run.

    The learning rate rises linearly for a twentieth of the steps and falls to zero along a cosine. Returns the moving
    average of the loss. Raises `UserError` if the loss becomes non-finite, `Interrupted` if the job is told to end.
    """
    optimizer = torch.optim.Adam(module.parameters(), lr=training.learning_rate, fused=True)
    checkpoint = Checkpoint(context.checkpoint, context.owner, context.checkpoint_seconds)
    done, recent_loss = 0, math.nan
    if (state := checkpoint.load()) is not None:
        with checkpoint.restoring():
            done, recent_loss = int(state["done"]), float(state["recent_loss"])
            module.load_state_dict(state["module"])
            restore_optimizer(optimizer, state["optimizer"])
            if average is not None:
                average.load(state["average"])
        log.info("resuming from step %d", done)
    progress = Progress(name, training.steps, start=done)
    module.train()

    def state_now() -> dict[str, Any]:
        return {
            "done": done,
            "recent_loss": recent_loss,
            "module": module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": [] if average is None else average.values,
        }

    with checkpoint.defer_signals():
        while done < training.steps:
            for group in optimizer.param_groups:
                group["lr"] = training.learning_rate * _learning_rate_factor(done, training.steps)
            loss = loss_at(done)
            value = loss.item()
            if not math.isfinite(value):
                raise UserError(
                    f"{name}: the loss is {value} at step {done + 1} of {training.steps}, expected a finite number; "
                    f"reduce its learning_rate, now {training.learning_rate}."
                )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), MAX_GRADIENT_NORM)
            optimizer.step()
            if average is not None:
                average.update(done)
            recent_loss = value if done == 0 else LOSS_DECAY * recent_loss + (1 - LOSS_DECAY) * value
            done += 1
            progress.report(done, recent_loss)
            checkpoint.save_if_due(state_now)
    checkpoint.save(state_now())
    module.eval()
    return recent_loss


def _learning_rate_factor(step: int, steps: int) -> float:
    warm_up = max(1, steps // 20)
    return min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * step / steps))
