"""The noise predictions that an objective needs: predictor, pairs, prompts and x_t of each. Handles no tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from corelib.settings.objective import (
    CurrentModel,
    FrozenModel,
    GaussianNoise,
    GuidedModel,
    Objective,
    Target,
    UniformNoise,
)

Side = Literal["forget", "retain"]


@dataclass(frozen=True)
class NoisePrediction:
    """A noise prediction that an objective needs: the predictor, the pairs, and which of their prompts and x_t."""

    predictor: Literal["student", "detached student", "teacher"]
    side: Side
    prompt: Literal["own", "anchor"]
    noisy: Literal["of prediction", "of target"] = "of prediction"


def required_predictions(objective: Objective) -> list[NoisePrediction]:
    """All predictions needed to evaluate an objective on a batch, without repetition."""
    questions = [NoisePrediction("student", "forget", "own"), *target_predictions(objective.unlearn.target, "forget")]
    if objective.retain is not None:
        questions += [
            NoisePrediction("student", "retain", "own"),
            *target_predictions(objective.retain.target, "retain"),
        ]
    return list(dict.fromkeys(questions))


def target_predictions(target: Target, side: Side) -> list[NoisePrediction]:
    """The predictions needed to compute a target noise."""
    match target:
        case FrozenModel(prompt=prompt):
            return [NoisePrediction("teacher", side, prompt)]
        case CurrentModel(prompt=prompt, gradient=gradient, posterior=posterior):
            predictor: Literal["student", "detached student"] = (
                "student" if gradient == "through" else "detached student"
            )
            return [NoisePrediction(predictor, side, prompt, "of prediction" if posterior == "shared" else "of target")]
        case GuidedModel():
            return [NoisePrediction("teacher", side, "anchor"), NoisePrediction("teacher", side, "own")]
        case GaussianNoise() | UniformNoise():
            return []
