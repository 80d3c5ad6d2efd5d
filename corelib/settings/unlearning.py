"""Settings of an unlearning run: the terms of its objective, its anchors, optimiser and length.

An objective follows the paper's equations 5 and 6 literally. It has images, a target noise, a sign and weight, and a
retain target. The set of target noises is closed; a method is a choice from it.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from corelib.settings.ddim import DDIMConfig
from corelib.settings.precision import TrainingPrecision
from corelib.settings.prompts import Wording
from corelib.settings.section import Section
from corelib.settings.trainable import TrainableTensors

LENGTH_DECIMALS = 9
"""Decimal places to which scaled lengths are rounded, so that 6 x 0.1 epochs are 0.6 and add no step."""


class FrozenModel(Section):
    """Prediction of the frozen, pre-trained model at the same x_t: eps_theta*(x_t, prompt).

    Attributes:
        prompt: the prompt of the prediction: that of the anchor, or the own one of the pair.
    """

    kind: Literal["frozen_model"]
    prompt: Literal["anchor", "own"]


class CurrentModel(Section):
    """Prediction of the model in training: eps_theta(x_t, prompt).

    Attributes:
        prompt: the prompt of the prediction: that of the anchor, or the own one of the pair.
        gradient: whether the gradient of the loss is "detached" from the target or flows "through" it.
        posterior: the x_t of the target. "shared" is the x_t of the student's prediction. "own" has the same t and
            noise, but a second draw of the latent from the autoencoder's posterior of the same image.
    """

    kind: Literal["current_model"]
    prompt: Literal["anchor", "own"]
    gradient: Literal["detached", "through"]
    posterior: Literal["shared", "own"]


class GaussianNoise(Section):
    """The standard Gaussian noise in x_t."""

    kind: Literal["gaussian_noise"]


class UniformNoise(Section):
    """Independent draws from U[low, high), unrelated to x_t.

    Attributes:
        low: lower end of the interval.
        high: upper end of the interval.
    """

    kind: Literal["uniform_noise"]
    low: float
    high: float

    @model_validator(mode="after")
    def _check_interval(self) -> UniformNoise:
        if self.low >= self.high:
            raise ValueError("an interval with low < high")
        return self


class GuidedModel(Section):
    """Equation 8: e_0 - eta (e_f - e_0) of the frozen model; e_0 is its prediction at the anchor (base) concept.

    Attributes:
        eta: strength of the negative guidance.
    """

    kind: Literal["guided_model"]
    eta: float


Target = Annotated[FrozenModel | CurrentModel | GaussianNoise | UniformNoise | GuidedModel, Field(discriminator="kind")]


class SampledImages(DDIMConfig):
    """x_t sampled by the current model from noise at p_f, stopped at a noise level drawn among the steps.

    The DDIM options belong to the method and are independent of those with which the study samples its images.

    Attributes:
        steps: number of DDIM steps from noise to image.
        guidance_scale: s in the guided prediction e_0 + s (e_f - e_0).
    """

    kind: Literal["sampled"]
    steps: PositiveInt
    guidance_scale: float


class MinSNR(Section):
    """Weight `scale` min(SNR_t, gamma) / SNR_t, with SNR_t = alpha_bar_t / (1 - alpha_bar_t).

    From Hang et al. 2023, Efficient Diffusion Training via Min-SNR Weighting Strategy (arXiv:2303.09556), with gamma 5.

    Attributes:
        scale: lambda, with its sign.
        gamma: the bound on SNR_t.
    """

    kind: Literal["min_snr"]
    scale: float
    gamma: PositiveFloat


class OneMinusAlphaBar(Section):
    """Weight `scale` (1 - alpha_bar_t); 1 - alpha_bar_t is the variance of the noise in x_t.

    The loss weight of Poole et al. 2022, DreamFusion (arXiv:2209.14988).

    Attributes:
        scale: lambda, with its sign.
    """

    kind: Literal["one_minus_alpha_bar"]
    scale: float


Weight = float | Annotated[MinSNR | OneMinusAlphaBar, Field(discriminator="kind")]


class UnlearnTerm(Section):
    """Term that pushes eps_theta(x_t, p_f) away from the forget concept.

    Attributes:
        images: source of x_t. "forget" adds noise to the image of the forget pair (equation 5), "anchor" to the image
            of the anchor style with the same object and index (equation 6), "generated" to an image of the anchor
            concept that the base model has generated. With `SampledImages` the current model samples x_t.
        target: the target noise y.
        weight: lambda of equations 5 and 6 with its sign, -1 for gradient ascent; or lambda omega_t, a function of t
            (equations 11 and 12), with lambda as its `scale`.
        distance: the squared norm, or the norm itself (equations 11 and 12 as printed).
    """

    images: Literal["forget", "anchor", "generated"] | SampledImages
    target: Target
    weight: Weight
    distance: Literal["squared", "norm"]

    @model_validator(mode="after")
    def _check_target_of_sampled_images(self) -> UnlearnTerm:
        if isinstance(self.images, SampledImages) and self.target.kind == "gaussian_noise":
            raise ValueError("a target other than gaussian_noise, since the noise in a sampled x_t is unknown")
        if isinstance(self.images, SampledImages) and getattr(self.target, "posterior", "shared") == "own":
            raise ValueError("a target with `posterior: shared`, since a sampled x_t has no posterior to draw from")
        return self

    @property
    def shows_anchor(self) -> bool:
        """Whether the images show the anchor concept."""
        return self.images in ("anchor", "generated")


class RetainTerm(Section):
    """Term that preserves eps_theta(x_t, p_r) on retain pairs.

    Attributes:
        target: the target noise on retain pairs.
        weight: alpha, beta or lambda in the paper.
    """

    target: Target
    weight: PositiveFloat

    @model_validator(mode="after")
    def _check_target_of_retain_pairs(self) -> RetainTerm:
        if self.target.kind == "guided_model" or getattr(self.target, "prompt", "own") == "anchor":
            raise ValueError("a target that needs no anchor, since retain pairs have none")
        if getattr(self.target, "posterior", "shared") == "own":
            raise ValueError("a target with `posterior: shared`, since the latents of retain pairs are drawn once")
        return self


class Objective(Section):
    """A method's loss: equation 5 or 6 plus a retain term.

    Attributes:
        unlearn: the term on forget pairs.
        retain: the term on retain pairs; null for none.
    """

    unlearn: UnlearnTerm
    retain: RetainTerm | None


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
