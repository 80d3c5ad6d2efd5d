"""What an unlearning run reads: the composition of its objective, its anchors, its optimiser and its length.

An objective is the paper's equations 5 and 6 taken at their word: which images, which target noise, which sign and
weight, and which retain target. The vocabulary of target noises is closed; a method is a choice from it.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from corelib.settings.ddim import Switches
from corelib.settings.precision import TrainingPrecision
from corelib.settings.prompts import Wording
from corelib.settings.section import Section
from corelib.settings.trainable import Trained

DIGITS = 9
"""Scaled lengths are rounded to them, so that 6 x 0.1 epochs are 0.6 and not a step more."""


class FrozenModel(Section):
    """The pre-trained noise predictor's answer at the same noisy image: eps_theta*(x_t, prompt)."""

    kind: Literal["frozen_model"]
    prompt: Literal["anchor", "own"]


class CurrentModel(Section):
    """The noise predictor in training: eps_theta(x_t, prompt).

    Attributes:
        posterior: whether x_t is that of the prediction, or has the same t and noise, but a latent of its own, drawn
            anew from the autoencoder's posterior of the same image.
    """

    kind: Literal["current_model"]
    prompt: Literal["anchor", "own"]
    gradient: Literal["detached", "through"]
    posterior: Literal["shared", "own"]


class GaussianNoise(Section):
    """The standard Gaussian vector that made x_t."""

    kind: Literal["gaussian_noise"]


class UniformNoise(Section):
    """A vector of independent draws from U[low, high), unrelated to x_t."""

    kind: Literal["uniform_noise"]
    low: float
    high: float

    @model_validator(mode="after")
    def _is_an_interval(self) -> UniformNoise:
        if self.low >= self.high:
            raise ValueError("an interval with low < high")
        return self


class GuidedModel(Section):
    """Equation 8: e_0 - eta (e_f - e_0) of the frozen model, where e_0 is its answer at the anchor (base) concept."""

    kind: Literal["guided_model"]
    eta: float


Target = Annotated[FrozenModel | CurrentModel | GaussianNoise | UniformNoise | GuidedModel, Field(discriminator="kind")]


class SampledImages(Switches):
    """x_t that the current model samples itself from noise at p_f, stopped at a noise level drawn among the steps.

    The switches are the method's own: those with which the study samples its images are another matter.

    Attributes:
        steps: of DDIM from noise to image.
        guidance_scale: s of the prediction e_0 + s (e_f - e_0) with which it samples.
    """

    kind: Literal["sampled"]
    steps: PositiveInt
    guidance_scale: float


class MinSNR(Section):
    """scale min(SNR_t, gamma) / SNR_t, with SNR_t = alpha_bar_t / (1 - alpha_bar_t): Hang et al. 2023, Efficient
    Diffusion Training via Min-SNR Weighting Strategy (arXiv:2303.09556), which has gamma 5.
    """

    kind: Literal["min_snr"]
    scale: float
    gamma: PositiveFloat


class OneMinusAlphaBar(Section):
    """scale (1 - alpha_bar_t), the variance of the noise in x_t: as Poole et al. 2022, DreamFusion (arXiv:2209.14988),
    weight their loss.
    """

    kind: Literal["one_minus_alpha_bar"]
    scale: float


Weight = float | Annotated[MinSNR | OneMinusAlphaBar, Field(discriminator="kind")]


class UnlearnTerm(Section):
    """What pushes eps_theta(x_t, p_f) away from the forget concept.

    Attributes:
        images: x_0 from the forget pair (equation 5); or the image of the anchor style with the same object and index
            (equation 6); or an image of the anchor concept that the base model has generated; or no x_0, but an x_t
            that the current model samples.
        target: the target noise y.
        weight: lambda of equations 5 and 6 with its sign; -1 ascends. Or lambda omega_t, a function of t (equations 11
            and 12), where `scale` is lambda.
        distance: the squared norm, or the norm itself (equations 11 and 12 as printed).
    """

    images: Literal["forget", "anchor", "generated"] | SampledImages
    target: Target
    weight: Weight
    distance: Literal["squared", "norm"]

    @model_validator(mode="after")
    def _has_the_noise_of_its_target(self) -> UnlearnTerm:
        if isinstance(self.images, SampledImages) and self.target.kind == "gaussian_noise":
            raise ValueError("a target other than gaussian_noise: no noise has made an x_t that is sampled")
        if isinstance(self.images, SampledImages) and getattr(self.target, "posterior", "shared") == "own":
            raise ValueError("a target with `posterior: shared`: an x_t that is sampled has no latent to draw")
        return self

    @property
    def shows_the_anchor(self) -> bool:
        """Whether the images are of the anchor concept."""
        return self.images in ("anchor", "generated")


class RetainTerm(Section):
    """What holds eps_theta(x_t, p_r) on retain pairs; `weight` is alpha, beta or lambda of the paper."""

    target: Target
    weight: PositiveFloat

    @model_validator(mode="after")
    def _needs_no_anchor(self) -> RetainTerm:
        if self.target.kind == "guided_model" or getattr(self.target, "prompt", "own") == "anchor":
            raise ValueError("a target that needs no anchor: retain pairs have none")
        if getattr(self.target, "posterior", "shared") == "own":
            raise ValueError("a target with `posterior: shared`: latents of retain pairs are drawn once")
        return self


class Objective(Section):
    """A method's loss: equation 5 or 6 plus a retain term."""

    unlearn: UnlearnTerm
    retain: RetainTerm | None


class Length(Section):
    """How long a run trains: a number of epochs or of steps."""

    epochs: PositiveFloat | None = None
    steps: PositiveInt | None = None

    @model_validator(mode="after")
    def _is_said_once(self) -> Length:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("either `epochs` or `steps`")
        return self

    def times(self, factor: float) -> Length:
        """A length so many times as long; a step that has begun counts whole."""
        if self.steps is not None:
            return Length(steps=math.ceil(round(self.steps * factor, DIGITS)))
        assert self.epochs is not None
        return Length(epochs=round(self.epochs * factor, DIGITS))


class Adam(Section):
    """The optimiser of every method (Appendix B: Adam with a constant learning rate)."""

    betas: list[float] = Field(min_length=2, max_length=2)
    epsilon: PositiveFloat
    weight_decay: float = Field(ge=0)


class UnlearningStage(Section):
    """Everything that one unlearning run reads besides its slice, latents, embeddings and base model.

    Attributes:
        candidates: for each forget style, the anchor styles that may be drawn for it; one entry means no draw.
        draw: whether each pair of a step draws its own or a step draws once; None where nothing is drawn.
        least_steps: the run trains for at least so many steps, however short its length.
        epoch_counts: whether `batch` is the number of forget pairs in a step ("forget"), or of forget and retain
            pairs together ("both").
        reduction: of the norms over the d dimensions of the latents, squared or not; "sum" is the printed equation,
            "mean" all of it over d, to which Adam is indifferent up to its epsilon.
    """

    objective: Objective
    trained: Trained
    candidates: dict[str, list[str]]
    draw: Literal["pair", "step"] | None
    learning_rate: PositiveFloat
    batch: PositiveInt
    length: Length
    least_steps: PositiveInt
    epoch_counts: Literal["forget", "both"]
    reduction: Literal["mean", "sum"]
    optimizer: Adam
    wording: Wording
    precision: TrainingPrecision
    seed: int

    @property
    def pairs_a_step(self) -> int:
        """How many forget pairs a step sees; it sees as many retain pairs, if the objective has a retain term."""
        halves = 2 if self.epoch_counts == "both" and self.objective.retain is not None else 1
        return self.batch // halves

    def steps_on(self, forget_pairs: int) -> int:
        """The length of the run: as said, or so many passes over the forget pairs, and at least `least_steps`."""
        if self.length.steps is not None:
            said = self.length.steps
        else:
            assert self.length.epochs is not None
            said = math.ceil(round(self.length.epochs * forget_pairs / self.pairs_a_step, DIGITS))
        return max(said, self.least_steps)


class Saliency(Section):
    """SalUn's mask: only the trained weights with the largest gradients on the forget set may change.

    Attributes:
        scope: the weights whose gradients are ranked: the trained ones, or all of the U-Net. The mask is of the trained
            ones in either case, since no others move.
        keep: the fraction of the ranked weights whose gradients reach the threshold, one for all of them.
        threshold: or else the magnitude from which a weight's gradient lets it change; the gradient is that of the
            mean over a latent's dimensions, summed over the forget pairs.
        guidance_scale: s of the prediction e_0 + s (e_f - e_0) whose gradient is taken: 1 is equation 1, and 8.5 what
            public code calls a guidance of 7.5.
    """

    scope: Literal["trained", "all"]
    keep: float | None = Field(gt=0, le=1)
    threshold: PositiveFloat | None
    guidance_scale: float

    @model_validator(mode="after")
    def _chooses_in_one_way(self) -> Saliency:
        if (self.keep is None) == (self.threshold is None):
            raise ValueError("either `keep` or `threshold`, and null for the other")
        return self


class SaliencyStage(Section):
    """Everything that a saliency mask reads besides the material of its task."""

    saliency: Saliency
    trained: Trained
    batch: PositiveInt
    wording: Wording
    precision: TrainingPrecision
    seed: int
