"""Objectives: equations 5 and 6 of the paper with a retain term, composed from the configuration.

    L(theta) = E lambda omega_t ||eps_theta(x_t, p_f) - y_f||^2  +  alpha E ||eps_theta(x_t, p_r) - y_r||^2

The methods differ in the images from which x_t is made, in the target noise y, in the weight of the first term, and in
the second term. All predictions that one noise predictor has to make are computed in one forward pass.

Notation. `batch` is the number of pairs of one side in a step, (c, h, w) the shape of a latent, `tokens` and `width`
those of a text embedding.

    paper                    here                              shape
    -----------------------  --------------------------------  -----------------------------------------------------
    eps_theta                `student`                         a `NoisePredictor`, with gradients
    eps_theta*               `teacher`                         a `NoisePredictor`, without gradients
    D_f, D_r                 `batch.forget`, `batch.retain`    `NoisyPairs`
    x_t                      `pairs.noisy`                     (batch, c, h, w)
    x_t of a target noise    `pairs.target_noisy`, if not as   (batch, c, h, w)
                             above (`posterior: own`)
    t                        `pairs.timesteps`                 (batch,)
    alpha_bar_t              `pairs.alpha_bar`                 (batch,)
    eps                      `pairs.noise`                     (batch, c, h, w), the noise that made x_t
    p_f, p_r                 `pairs.own` of the forget and     (batch, tokens, width)
                             of the retain pairs
    p_a, or p_0              `pairs.anchor`                    (batch, tokens, width)
    eps_theta(x_t, p)        `prediction`                      (batch, c, h, w)
    y_CE, y_IR, eps_f, y_r   `target`                          (batch, c, h, w)
    eta (equation 8)         `target.eta`                      number
    lambda (5 and 6)         `objective.unlearn.weight`        number
    lambda omega_t           `loss_weight(weight, alpha_bar)`  (batch,)
    ||eps_theta - y||^2      `distances`                       (batch,), divided by d where `reduction` is "mean"
    d                        `flat.shape[1]`                   number, c h w
    alpha (4), beta (9, 10), `objective.retain.weight`         number
    lambda (11, 12)
    L_f, L_r                 `Loss.unlearn`, `Loss.retain`     scalar tensors, without the weights
    L                        `Loss.total`                      scalar tensor

Equations 5 and 6 differ in x_0 alone: an image of the forget set, or one of the retain set (here: of the anchor
concept). `objective.unlearn.images` chooses, and `corelib.unlearning.batches` makes the pairs accordingly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from corelib.settings.objective import (
    CurrentModel,
    FrozenModel,
    GaussianNoise,
    GuidedModel,
    MinSNR,
    Objective,
    OneMinusAlphaBar,
    Target,
    UniformNoise,
    Weight,
)
from corelib.unlearning.noise_predictions import NoisePrediction, Side, required_predictions, target_predictions

NoisePredictor = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_t, t, prompt embeddings) -> predicted noise, batch first."""


@dataclass(frozen=True)
class NoisyPairs:
    """Noisy images with their prompts; all tensors batch first.

    Attributes:
        noisy: x_t, (batch, c, h, w).
        timesteps: t, (batch,).
        alpha_bar: alpha_bar_t of the noise schedule, (batch,).
        noise: the Gaussian noise in x_t, (batch, c, h, w).
        own: embeddings of the pairs' own prompts (p_f or p_r), (batch, tokens, width).
        anchor: embeddings of the alternative prompts p_a, (batch, tokens, width); None for retain pairs.
        uniform: draws from U[0, 1), (batch, c, h, w); None if the target noise is another one.
        target_noisy: x_t of the same images with the same t and noise but a second draw of the posterior,
            (batch, c, h, w); None if the target noise is predicted at `noisy`, or not predicted.
    """

    noisy: Tensor
    timesteps: Tensor
    alpha_bar: Tensor
    noise: Tensor
    own: Tensor
    anchor: Tensor | None = None
    uniform: Tensor | None = None
    target_noisy: Tensor | None = None

    def to(self, device: torch.device) -> NoisyPairs:
        """The same pairs on another device."""
        tensors: dict[str, Any] = {name: part if part is None else part.to(device) for name, part in vars(self).items()}
        return NoisyPairs(**tensors)


@dataclass(frozen=True)
class Batch:
    """The pairs of one training step.

    Attributes:
        forget: the forget pairs.
        retain: the retain pairs; None if the objective has no retain term.
        level: the noise level down to which the current model still has to sample the x_t of the forget pairs, whose
            `noisy` is x_T until then; None if the images are not sampled.
    """

    forget: NoisyPairs
    retain: NoisyPairs | None
    level: int | None = None


@dataclass(frozen=True)
class Loss:
    """The loss of one step.

    Attributes:
        total: the loss, a scalar with gradients.
        unlearn, retain: its two terms without their weights, scalars without gradients.
    """

    total: Tensor
    unlearn: Tensor
    retain: Tensor


Predictions = Mapping[NoisePrediction, Tensor]


def compute_loss(
    objective: Objective,
    student: NoisePredictor,
    teacher: NoisePredictor,
    batch: Batch,
    reduction: Literal["mean", "sum"],
) -> Loss:
    """The loss of an objective at one batch (equations 2-4 and 8-12, by composition).

    Args:
        objective: the unlearn term and the retain term.
        student: eps_theta, with gradients.
        teacher: eps_theta*, the pre-trained predictor.
        batch: forget pairs, and retain pairs if the objective has a retain term.
        reduction: reduction of the norms over the d dimensions of a latent; "mean" is "sum" divided by d.
    """
    predictions = _predict_all(required_predictions(objective), student, teacher, batch)

    prediction = predictions[NoisePrediction("student", "forget", "own")]
    target = _target_noise(objective.unlearn.target, "forget", predictions, batch)
    distances = _distances(prediction - target, objective.unlearn.distance, reduction)
    unlearn, weighted = distances.mean(), _weighted_mean(distances, objective.unlearn.weight, batch.forget.alpha_bar)
    if objective.retain is None:
        return Loss(weighted, unlearn.detach(), torch.zeros_like(unlearn))

    prediction = predictions[NoisePrediction("student", "retain", "own")]
    target = _target_noise(objective.retain.target, "retain", predictions, batch)
    retain = _distances(prediction - target, "squared", reduction).mean()
    return Loss(weighted + objective.retain.weight * retain, unlearn.detach(), retain.detach())


def _weighted_mean(distances: Tensor, weight: Weight, alpha_bar: Tensor) -> Tensor:
    """Mean of lambda omega_t times the distance over a batch, a scalar; `distances` are (batch,)."""
    if isinstance(weight, float):
        return weight * distances.mean()
    return (loss_weight(weight, alpha_bar) * distances).mean()


def loss_weight(weight: MinSNR | OneMinusAlphaBar, alpha_bar: Tensor) -> Tensor:
    """lambda omega_t of equations 11 and 12 at each noise level, (batch,)."""
    match weight:
        case MinSNR(scale=scale, gamma=gamma):  # min(SNR, gamma) / SNR; written so that it is 1 at an SNR of 0
            return scale * (gamma * (1 - alpha_bar) / alpha_bar).clamp(max=1)
        case OneMinusAlphaBar(scale=scale):
            return scale * (1 - alpha_bar)


def _target_noise(target: Target, side: Side, predictions: Predictions, batch: Batch) -> Tensor:
    """The target noise y of equations 5 and 6, (batch, c, h, w)."""
    pairs = _pairs(batch, side)
    match target:
        case FrozenModel() | CurrentModel():
            return predictions[target_predictions(target, side)[0]]
        case GuidedModel(eta=eta):
            base, own = (predictions[question] for question in target_predictions(target, side))
            return base - eta * (own - base)  # equation 8
        case GaussianNoise():
            return pairs.noise
        case UniformNoise(low=low, high=high):
            assert pairs.uniform is not None
            return low + (high - low) * pairs.uniform


def _predict_all(
    needed: list[NoisePrediction], student: NoisePredictor, teacher: NoisePredictor, batch: Batch
) -> Predictions:
    """Compute all predictions, those of each predictor in one forward pass."""
    predictions: dict[NoisePrediction, Tensor] = {}
    for name, predictor, with_gradients in (
        ("detached student", student, False),
        ("teacher", teacher, False),
        ("student", student, True),
    ):
        questions = [question for question in needed if question.predictor == name]
        if questions:
            with torch.set_grad_enabled(with_gradients):
                predictions |= _predict_batched(questions, predictor, batch)
    return predictions


def _predict_batched(questions: list[NoisePrediction], predictor: NoisePredictor, batch: Batch) -> Predictions:
    pairs = [_pairs(batch, question.side) for question in questions]
    prompts = [_prompt(batch, question) for question in questions]
    predicted = predictor(
        torch.cat([_noisy(batch, question) for question in questions]),
        torch.cat([part.timesteps for part in pairs]),
        torch.cat(prompts),
    )
    return dict(zip(questions, predicted.split([len(part.noisy) for part in pairs]), strict=True))


def _pairs(batch: Batch, side: Side) -> NoisyPairs:
    pairs = batch.forget if side == "forget" else batch.retain
    assert pairs is not None, "an objective with a retain term needs retain pairs"
    return pairs


def _noisy(batch: Batch, question: NoisePrediction) -> Tensor:
    pairs = _pairs(batch, question.side)
    noisy = pairs.noisy if question.noisy == "of prediction" else pairs.target_noisy
    assert noisy is not None, "these pairs have no second draw of the posterior"
    return noisy


def _prompt(batch: Batch, question: NoisePrediction) -> Tensor:
    pairs = _pairs(batch, question.side)
    prompt = pairs.own if question.prompt == "own" else pairs.anchor
    assert prompt is not None, "retain pairs have no anchor"
    return prompt


def _distances(difference: Tensor, distance: Literal["squared", "norm"], reduction: Literal["mean", "sum"]) -> Tensor:
    """||difference||^2 or ||difference|| of each pair, (batch,); "mean" divides by the number of dimensions."""
    flat = difference.flatten(start_dim=1)
    if distance == "norm":
        # its gradient at 0 is 0; that of the square root of the squares would be NaN
        norms = torch.linalg.vector_norm(flat, dim=1)
        return norms if reduction == "sum" else norms / flat.shape[1]
    squares = flat.square()
    return squares.sum(dim=1) if reduction == "sum" else squares.mean(dim=1)
