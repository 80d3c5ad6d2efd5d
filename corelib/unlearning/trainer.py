"""The unlearning loop: one trainer for every method, scheme and task.

A step is a function of (seed, step) and of the trained tensors alone, so an interrupted run resumes to the same bits.
"""

from __future__ import annotations

import logging
from typing import Any

import torch

from corelib.models.base_model import BaseModel
from corelib.models.delta import DELTA_FILE, save_delta
from corelib.models.device import Device
from corelib.models.student_teacher import StudentAndTeacher
from corelib.runs.checkpoint import Checkpoint, restore_optimizer, restore_tensors
from corelib.runs.progress import Progress
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.unlearning import SampledImages, UnlearningStage
from corelib.unlearning.batches import Batches
from corelib.unlearning.masks import load_masks
from corelib.unlearning.objective import compute_loss
from corelib.unlearning.partial_sampling import PartialSampler
from corelib.unlearning.training_data import TrainingData
from corelib.unlearning.training_file import TRAINING_FILE
from corelib.unlearning.training_log import TrainingLog

log = logging.getLogger(__name__)


def unlearn(settings: UnlearningStage, context: StageContext) -> StageResult:
    """Stage: train the cross-attention on the objective; save it as a delta, and what each step showed.

    A loss or gradient that is not finite ends the training. The result is then the tensors before that step, marked as
    diverged.
    """
    base, device = BaseModel(context.inputs["pipeline"]), Device(settings.precision, context.threads)
    models, images = StudentAndTeacher(base.unet(), settings.trained, device), settings.objective.unlearn.images
    scheduler = base.scheduler(**(images.switches if isinstance(images, SampledImages) else {}))
    material = TrainingData(context.inputs, settings.wording, scheduler.alphas_cumprod, device.torch_device)
    batches = Batches(settings, material, PartialSampler(models.student, scheduler, material.empty_prompts))
    masks = load_masks(context.inputs.get("saliency"), models.trained)
    optimizer = torch.optim.Adam(
        models.trained.values(),
        lr=settings.learning_rate,
        betas=(settings.optimizer.betas[0], settings.optimizer.betas[1]),
        eps=settings.optimizer.epsilon,
        weight_decay=settings.optimizer.weight_decay,
    )

    log.info("training %d steps at learning rate %g (after training.scale)", batches.steps, settings.learning_rate)
    checkpoint = Checkpoint(context.checkpoint, context.owner, context.checkpoint_seconds)
    training_log = TrainingLog()
    first_step = _resume(checkpoint, models, optimizer, training_log)
    progress = Progress("steps", batches.steps, first_step)
    diverged_at = None
    with checkpoint.defer_signals():
        for step in range(first_step, batches.steps):
            loss = compute_loss(
                settings.objective, models.student, models.teacher, batches.at(step), settings.reduction
            )
            optimizer.zero_grad(set_to_none=True)
            loss.total.backward()
            gradient_norm = _gradient_norm(models)
            training_log.add(loss, gradient_norm)
            if not torch.isfinite(loss.total) & torch.isfinite(gradient_norm):
                log.warning("loss or gradient is not finite at step %d: the run diverged", step)
                diverged_at = step
                break
            for name, mask in masks.items():
                gradient = models.trained[name].grad
                assert gradient is not None
                gradient.mul_(mask)
            optimizer.step()
            progress.report(step + 1, loss.total.item())
            checkpoint.save_if_due(lambda done=step + 1: _state(done, models, optimizer, training_log))  # type: ignore[misc]

    if diverged_at is None:
        checkpoint.save(_state(batches.steps, models, optimizer, training_log))
    save_delta(context.folder / DELTA_FILE, models.trained, settings.trained, base.unet_sha256, context.digest)
    training_log.write(context.folder / TRAINING_FILE, settings.learning_rate)
    return StageResult(
        [DELTA_FILE, TRAINING_FILE],
        {
            "base": base.unet_sha256,
            "steps": batches.steps,
            "diverged_at": diverged_at,
        },
    )


def _gradient_norm(models: StudentAndTeacher) -> torch.Tensor:
    """The norm of the gradient of all trained tensors together, a scalar."""
    gradients = [parameter.grad for parameter in models.trained.values() if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


def _resume(
    checkpoint: Checkpoint, models: StudentAndTeacher, optimizer: torch.optim.Optimizer, training_log: TrainingLog
) -> int:
    """Restore the state of an earlier attempt, if there is one; return the step to resume from."""
    state = checkpoint.load()
    if state is None:
        return 0
    with checkpoint.restoring(), torch.no_grad():
        step = int(state["step"])
        restore_tensors(models.trained, state["trained"])
        restore_optimizer(optimizer, state["optimizer"])
        training_log.restore(state["log"], step)
    log.info("resuming from step %d", step)
    return step


def _state(
    step: int, models: StudentAndTeacher, optimizer: torch.optim.Optimizer, training_log: TrainingLog
) -> dict[str, Any]:
    trained = {name: parameter.detach() for name, parameter in models.trained.items()}
    return {"step": step, "trained": trained, "optimizer": optimizer.state_dict(), "log": training_log.state()}
