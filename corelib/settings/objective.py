"""Settings of a method's objective: the terms of its loss, their images, targets and weights.

An objective follows the paper's equations 5 and 6 literally. It has images, a target noise, a sign and weight, and a
retain target. The set of target noises is closed; a method is a choice from it. `corelib.unlearning.objective` computes
the loss.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from corelib.settings.ddim import DDIMConfig
from corelib.settings.section import Section


class FrozenModel(Section):
    """Prediction of the frozen model from which the training starts, at the same x_t: eps_theta*(x_t, prompt).

    It is the pre-trained model, or the model of the task before in a sequence.

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
