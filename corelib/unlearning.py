"""The unlearning loop: one trainer for every method, scheme and task.

A step is a function of (seed, step) and of the trained tensors alone, so an interrupted run goes on to the same bits.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch

from corelib.batches import Material, turn
from corelib.checkpoints import Checkpoint, put_back, put_back_tensors
from corelib.devices import Device
from corelib.diffusion import DELTA, BaseModel, StudentAndTeacher, save_delta
from corelib.masks import load_masks
from corelib.objectives import Batch, NoisyPairs, evaluate
from corelib.progress import Progress
from corelib.randomness import generator
from corelib.settings.unlearning import SampledImages, UnlearningStage
from corelib.slices import Pair
from corelib.trajectories import Trajectories
from corelib.work import Outcome, Work

log = logging.getLogger(__name__)


def unlearn(settings: UnlearningStage, work: Work) -> Outcome:
    """Stage: train the cross-attention by the objective and save it as a delta.

    A loss or gradient that is not finite ends the training; the tensors before that step are the result, marked as
    diverged.
    """
    base, device = BaseModel(work.inputs["pipeline"]), Device(settings.precision, work.threads)
    models, images = StudentAndTeacher(base.unet(), settings.trained, device), settings.objective.unlearn.images
    scheduler = base.scheduler(**(images.switches if isinstance(images, SampledImages) else {}))
    material = Material(work.inputs, settings.wording, scheduler.alphas_cumprod, device.torch_device)
    batches = Batches(settings, material, Trajectories(models.student, scheduler, material.unconditioned))
    masks = load_masks(work.inputs.get("saliency"), models.trained)
    optimizer = torch.optim.Adam(
        models.trained.values(),
        lr=settings.learning_rate,
        betas=(settings.optimizer.betas[0], settings.optimizer.betas[1]),
        eps=settings.optimizer.epsilon,
        weight_decay=settings.optimizer.weight_decay,
    )

    log.info("%d steps at a learning rate of %g, scaled as the study says", batches.steps, settings.learning_rate)
    checkpoint = Checkpoint(work.checkpoint, work.owner, work.checkpoint_seconds)
    first_step = _resume(checkpoint, models, optimizer)
    progress = Progress("steps", batches.steps, first_step)
    diverged_at = None
    with checkpoint.watching_for_the_end():
        for step in range(first_step, batches.steps):
            loss = evaluate(settings.objective, models.student, models.teacher, batches.at(step), settings.reduction)
            optimizer.zero_grad(set_to_none=True)
            loss.total.backward()
            if not _is_finite(loss.total, models):
                log.warning("loss or gradient is not finite at step %d: the run diverged", step)
                diverged_at = step
                break
            for name, mask in masks.items():
                gradient = models.trained[name].grad
                assert gradient is not None
                gradient.mul_(mask)
            optimizer.step()
            progress.report(step + 1, loss.total.item())
            checkpoint.offer(lambda done=step + 1: _state(done, models, optimizer))  # type: ignore[misc]

    if diverged_at is None:
        checkpoint.save(_state(batches.steps, models, optimizer))
    save_delta(work.folder / DELTA, models.trained, settings.trained, base.identity, work.digest)
    return Outcome(
        [DELTA],
        {
            "base": base.identity,
            "steps": batches.steps,
            "diverged_at": diverged_at,
        },
    )


class Batches:
    """The training batches of a run, each a function of its step, and of the model where this samples x_t itself.

    Args:
        settings: of the run.
        material: what pairs are made of.
        trajectories: the current model's own images, for an objective that asks for them.
    """

    def __init__(self, settings: UnlearningStage, material: Material, trajectories: Trajectories) -> None:
        self._settings = settings
        self._slice = material.slice
        self._material = material
        self._trajectories = trajectories
        self._size = settings.pairs_a_step
        self.steps = settings.steps_on(len(self._slice.forget))

    def at(self, step: int) -> Batch:
        """The batch of a step: forget pairs, and as many retain pairs if the objective has a retain term."""
        retain = None
        if self._settings.objective.retain is not None:
            pairs = turn(self._slice.retain, step * self._size, self._size, self._address("retain order"))
            retain = self._material.noisy_pairs(pairs, pairs, self._address("retain", step))
        return Batch(forget=self._forget_pairs(step), retain=retain)

    def _forget_pairs(self, step: int) -> NoisyPairs:
        pairs = turn(self._slice.forget, step * self._size, self._size, self._address("forget order"))
        anchors = self._anchors(pairs, step)
        term, address = self._settings.objective.unlearn, self._address("forget", step)
        if isinstance(term.images, SampledImages):
            part_way = functools.partial(self._trajectories.part_way, term.images)
            return self._material.sampled_pairs(pairs, address, anchors, part_way)
        images = pairs
        if term.shows_the_anchor:  # equation 6
            images = [Pair(anchor, pair.object, pair.index) for anchor, pair in zip(anchors, pairs, strict=True)]
        cache = self._material.latents
        if term.images == "generated":
            assert self._material.generated is not None, "an objective on generated images was given none"
            cache = self._material.generated
        return self._material.noisy_pairs(images, pairs, address, anchors, cache)

    def _anchors(self, pairs: list[Pair], step: int) -> list[str]:
        """The anchor style of each forget pair, drawn among its candidates."""
        draws = torch.rand(len(pairs), generator=generator(*self._address("anchors", step)), dtype=torch.float64)
        if self._settings.draw == "step":
            draws = draws[:1].expand(len(pairs))
        candidates = [self._settings.candidates[pair.style] for pair in pairs]
        return [styles[int(draw * len(styles))] for styles, draw in zip(candidates, draws.tolist(), strict=True)]

    def _address(self, *what: str | int) -> tuple[str | int, ...]:
        return ("unlearning", self._settings.seed, *what)


def _is_finite(loss: torch.Tensor, models: StudentAndTeacher) -> bool:
    gradients = [parameter.grad for parameter in models.trained.values() if parameter.grad is not None]
    return bool(torch.isfinite(loss) and torch.isfinite(torch.nn.utils.get_total_norm(gradients)))


def _resume(checkpoint: Checkpoint, models: StudentAndTeacher, optimizer: torch.optim.Optimizer) -> int:
    """Put back the state of an earlier attempt; the step to go on from."""
    state = checkpoint.load()
    if state is None:
        return 0
    with checkpoint.being_put_back(), torch.no_grad():
        step = int(state["step"])
        put_back_tensors(models.trained, state["trained"])
        put_back(optimizer, state["optimizer"])
    log.info("going on from step %d", step)
    return step


def _state(step: int, models: StudentAndTeacher, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    trained = {name: parameter.detach() for name, parameter in models.trained.items()}
    return {"step": step, "trained": trained, "optimizer": optimizer.state_dict()}
