"""Settings of an unlearning run: its objective, anchors, saliency mask, optimiser and length."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from corelib.settings.kernels import Kernels
from corelib.settings.objective import Objective
from corelib.settings.precision import TrainingPrecision
from corelib.settings.prompts import Wording
from corelib.settings.section import Section
from corelib.settings.trainable import TrainableTensors

LENGTH_DECIMALS = 9
"""Decimal places to which scaled lengths are rounded, so that 6 x 0.1 epochs are 0.6 and add no step."""


class Length(Section):
    """Length of a training run, in epochs or in steps.

    Attributes:
        epochs: number of epochs; an epoch is one pass over the forget pairs.
        steps: number of training steps, instead of `epochs`.
    """

    epochs: PositiveFloat | None = None
    steps: PositiveInt | None = None

    @model_validator(mode="after")
    def _check_exactly_one_is_set(self) -> Length:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("either `epochs` or `steps`")
        return self

    def times(self, factor: float) -> Length:
        """This length multiplied by `factor`; a number of steps is rounded up."""
        if self.steps is not None:
            return Length(steps=math.ceil(round(self.steps * factor, LENGTH_DECIMALS)))
        assert self.epochs is not None
        return Length(epochs=round(self.epochs * factor, LENGTH_DECIMALS))


class Adam(Section):
    """The optimiser of every method (Appendix B: Adam with a constant learning rate).

    Attributes:
        betas: the two decay rates, each from 0 to below 1.
        epsilon: the term in the denominator that avoids a division by zero.
        weight_decay: weight decay; must be 0 for a method with a saliency mask.
    """

    betas: list[float] = Field(min_length=2, max_length=2)
    epsilon: PositiveFloat
    weight_decay: float = Field(ge=0)


class TrainingSettings(Section):
    """Settings of the training of one run, whatever its images, prompts and base model are.

    Attributes:
        candidates: anchor styles that may be drawn for each forget style; a single one means no draw.
        draw: "pair" if each pair of a step draws its own anchor, "step" if they share one draw, None if nothing is
            drawn.
        min_steps: minimum number of steps, however short `length` is.
        batch_counts: whether `batch` is the number of forget pairs in a step ("forget"), or of forget and retain
            pairs together ("both").
        reduction: reduction of the norms, squared or not, over the d dimensions of the latents. "sum" is the printed
            equation; "mean" divides all of it by d, to which Adam is invariant up to its epsilon.
    """

    objective: Objective
    trained: TrainableTensors
    candidates: dict[str, list[str]]
    draw: Literal["pair", "step"] | None
    learning_rate: PositiveFloat
    batch: PositiveInt
    length: Length
    min_steps: PositiveInt
    batch_counts: Literal["forget", "both"]
    reduction: Literal["mean", "sum"]
    optimizer: Adam
    kernels: Kernels
    seed: int

    @property
    def pairs_per_step(self) -> int:
        """Number of forget pairs in a step, and of retain pairs if the objective has a retain term."""
        halves = 2 if self.batch_counts == "both" and self.objective.retain is not None else 1
        return self.batch // halves

    def num_steps(self, forget_pairs: int) -> int:
        """Number of training steps if an epoch has `forget_pairs` pairs; at least `min_steps`."""
        if self.length.steps is not None:
            num_steps = self.length.steps
        else:
            assert self.length.epochs is not None
            num_steps = math.ceil(round(self.length.epochs * forget_pairs / self.pairs_per_step, LENGTH_DECIMALS))
        return max(num_steps, self.min_steps)


class UnlearningStage(TrainingSettings):
    """Settings of the stage `unlearning`: all that one run reads besides slice, latents, embeddings and base model."""

    wording: Wording
    precision: TrainingPrecision


class Saliency(Section):
    """SalUn's mask: only the trained weights with the largest gradients on the forget set may change.

    Attributes:
        scope: weights whose gradients are ranked: the trained ones, or all of the U-Net. The mask covers the trained
            weights in either case, since no others change.
        keep: fraction of the ranked weights whose gradients reach the threshold; all of them have one threshold.
        threshold: the threshold itself, instead of `keep`: smallest gradient magnitude of a weight that may change.
            The gradient is that of the squared error, averaged over a latent's dimensions and summed over the forget
            pairs.
        guidance_scale: s in the prediction e_0 + s (e_f - e_0) whose gradient is taken. 1 is equation 1; 8.5 is a
            guidance of 7.5 in public code.
    """

    scope: Literal["trained", "all"]
    keep: float | None = Field(gt=0, le=1)
    threshold: PositiveFloat | None
    guidance_scale: float

    @model_validator(mode="after")
    def _check_exactly_one_is_set(self) -> Saliency:
        if (self.keep is None) == (self.threshold is None):
            raise ValueError("either `keep` or `threshold`, and null for the other")
        return self


class SaliencyStage(Section):
    """Settings of the stage `saliency`."""

    saliency: Saliency
    trained: TrainableTensors
    batch: PositiveInt
    wording: Wording
    precision: TrainingPrecision
    seed: int
