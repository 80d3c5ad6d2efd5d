"""The unlearning loop: one trainer for every method, scheme and task.

A step is a function of (seed, step) and of the trained tensors alone, so an interrupted run resumes to the same bits.
On a GPU, no step waits for the device, except where a number is shown or the state is saved.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from corelib.models.base_model import BaseModel
from corelib.models.delta import DELTA_FILE, Delta
from corelib.models.device import Device
from corelib.models.kernels import begin_step, set_kernels
from corelib.models.student_teacher import StudentAndTeacher
from corelib.runs.checkpoint import Checkpoint, restore_optimizer, restore_tensors
from corelib.runs.progress import Progress
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.objective import Objective, SampledImages
from corelib.settings.unlearning import TrainingSettings, UnlearningStage
from corelib.unlearning.batch_delivery import BatchDelivery
from corelib.unlearning.batches import Batches
from corelib.unlearning.masks import load_masks
from corelib.unlearning.objective import compute_loss
from corelib.unlearning.partial_sampling import PartialSampler
from corelib.unlearning.starting_model import earlier_divergence, starting_unet
from corelib.unlearning.training_data import TrainingData
from corelib.unlearning.training_file import TRAINING_FILE
from corelib.unlearning.training_log import TrainingLog

log = logging.getLogger(__name__)

FUSED_ON = ("cuda",)
"""Devices on which Adam is one kernel, which itself leaves all tensors as they are once the run has diverged."""


def unlearn(settings: UnlearningStage, context: StageContext) -> StageResult:
    """Stage: train the cross-attention on the objective; save it as a delta, and what each step showed.

    Student and teacher start from the model of the task before, if there is one; the delta holds the difference from
    the base model in either case. A loss or gradient that is not finite ends the training. The result is then the
    tensors before that step, marked as diverged, as are the results of all later tasks.
    """
    base, device = BaseModel(context.inputs["pipeline"]), Device(settings.precision, context.threads)
    models = StudentAndTeacher(starting_unet(base, context.inputs), settings.trained, device)
    scheduler = base.scheduler(**scheduler_options(settings.objective))
    material = TrainingData.of_runs(context.inputs, settings.wording, scheduler.alphas_cumprod)
    trainer = Trainer(settings, models, material, scheduler, load_masks(context.inputs.get("saliency"), models.trained))

    log.info("training %d steps at learning rate %g (after training.scale)", trainer.steps, settings.learning_rate)
    checkpoint = Checkpoint(context.checkpoint, context.owner, context.checkpoint_seconds)
    first_step = _resume(checkpoint, trainer)
    with checkpoint.defer_signals():
        diverged_at = trainer.train(first_step, lambda done: checkpoint.save_if_due(lambda: trainer.state(done)))
    if diverged_at is None:
        checkpoint.save(trainer.state(trainer.steps))
    earlier = earlier_divergence(context.inputs)
    Delta(models.trained, settings.trained, base.unet_sha256, context.digest).save(context.folder / DELTA_FILE)
    trainer.log.write(context.folder / TRAINING_FILE, settings.learning_rate)
    return StageResult(
        [DELTA_FILE, TRAINING_FILE],
        {
            "base": base.unet_sha256,
            "steps": trainer.steps,
            "diverged_at": diverged_at if earlier is None else earlier,
        },
    )


def scheduler_options(objective: Objective) -> dict[str, Any]:
    """Options of the DDIM scheduler with which an objective samples its images; none if it samples no images."""
    images = objective.unlearn.images
    return images.switches if isinstance(images, SampledImages) else {}


class Trainer:
    """The training of one run: model, batches, optimiser and log. Reads and writes no files.

    Args:
        settings: settings of the run.
        models: student and teacher. Their frozen weights are rounded to the format in which they compute.
        material: source of the noisy pairs.
        scheduler: DDIM over the base model's noise schedule, with the objective's `scheduler_options`.
        masks: saliency masks by the names of the trained tensors; empty if the method has none.

    Attributes:
        steps: number of training steps.
        log: the values of every step.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        models: StudentAndTeacher,
        material: TrainingData,
        scheduler: DDIMScheduler,
        masks: Mapping[str, Tensor],
    ) -> None:
        device, images = models.device.torch_device, settings.objective.unlearn.images
        models.round_frozen_weights()
        set_kernels(models.unet, settings.kernels)
        self._settings = settings
        self._models = models
        batches = Batches(settings, material)
        self._batches = BatchDelivery(batches, device)
        self._sampler = None
        if isinstance(images, SampledImages):
            empty_prompts = material.empty_prompts(settings.pairs_per_step).to(device)
            self._sampler = PartialSampler(images, models.student, scheduler, empty_prompts)
        self._masks = masks
        self._is_fused = device.type in FUSED_ON
        self._optimizer = torch.optim.Adam(
            models.trained.values(),
            lr=settings.learning_rate,
            betas=(settings.optimizer.betas[0], settings.optimizer.betas[1]),
            eps=settings.optimizer.epsilon,
            weight_decay=settings.optimizer.weight_decay,
            fused=self._is_fused or None,
        )
        self._has_diverged = torch.zeros((), device=device)  # 1 once a loss or gradient was not finite
        if self._is_fused:
            self._optimizer.found_inf = self._has_diverged  # type: ignore[attr-defined]
        self.steps = batches.steps
        self.log = TrainingLog()

    def train(self, first_step: int, save_if_due: Callable[[int], bool]) -> int | None:
        """Take the steps from `first_step` on, and report the progress.

        Returns the step whose loss or gradient was not finite; None if there is none. The tensors are those before that
        step, and the log ends with it. A GPU may have begun further steps before this is noticed; they change nothing.

        Args:
            first_step: number of steps that an earlier attempt has done.
            save_if_due: called after each step with the number of steps done; returns whether it has read the state.
        """
        progress = Progress("steps", self.steps, first_step)
        for step in range(first_step, self.steps):
            loss = self.train_step(step)
            was_shown = progress.report(step + 1, loss)
            was_saved = save_if_due(step + 1)
            if (was_shown or was_saved or not self._is_fused) and self._has_diverged:
                break
        diverged_at = self.log.end_at_divergence()
        if diverged_at is not None:
            log.warning("loss or gradient is not finite at step %d: the run diverged", diverged_at)
        return diverged_at

    def train_step(self, step: int) -> Tensor:
        """Change the trained tensors by one step of the optimiser; return the loss, a scalar.

        If the loss or its gradient is not finite, in this step or an earlier one, the tensors and the optimiser stay as
        they are.
        """
        settings, models = self._settings, self._models
        begin_step(settings.kernels)
        batch = self._batches.at(step)
        if self._sampler is not None:
            batch = self._sampler.complete(batch)
        loss = compute_loss(settings.objective, models.student, models.teacher, batch, settings.reduction)
        self._optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        gradient_norm = self._gradient_norm()
        self.log.add(loss, gradient_norm)
        is_finite = torch.isfinite(loss.total.detach()) & torch.isfinite(gradient_norm)
        self._has_diverged.masked_fill_(~is_finite, 1)
        for name, mask in self._masks.items():
            gradient = models.trained[name].grad
            assert gradient is not None
            gradient.mul_(mask)
        if self._is_fused or not self._has_diverged:
            self._optimizer.step()
        return loss.total.detach()

    def _gradient_norm(self) -> Tensor:
        """The norm of the gradient of all trained tensors together, a scalar."""
        gradients = [parameter.grad for parameter in self._models.trained.values() if parameter.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def state(self, step: int) -> dict[str, Any]:
        """The state after the first `step` steps, for a checkpoint."""
        trained = {name: parameter.detach() for name, parameter in self._models.trained.items()}
        return {
            "step": step,
            "trained": trained,
            "optimizer": self._optimizer.state_dict(),
            "log": self.log.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> int:
        """Restore a state and return its number of steps. Raises any exception if it does not fit this training."""
        with torch.no_grad():
            step = int(state["step"])
            restore_tensors(self._models.trained, state["trained"])
            for group in state["optimizer"]["param_groups"]:
                group["fused"] = self._is_fused or None  # the state may come from another kind of device
            restore_optimizer(self._optimizer, state["optimizer"])
            self.log.restore(state["log"], step)
            self._has_diverged.fill_(self.log.diverged_at() is not None)
        return step


def _resume(checkpoint: Checkpoint, trainer: Trainer) -> int:
    """Restore the state of an earlier attempt, if there is one; return the step to resume from."""
    state = checkpoint.load()
    if state is None:
        return 0
    with checkpoint.restoring():
        step = trainer.restore(state)
    log.info("resuming from step %d", step)
    return step
