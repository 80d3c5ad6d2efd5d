"""The noise predictions that an objective needs: predictor, pairs, prompts and x_t of each. Handles no tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from corelib.settings.unlearning import (
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
class Question:
    """A noise prediction that an objective needs: the predictor, the pairs, and which of their prompts and x_t."""

    predictor: Literal["student", "detached student", "teacher"]
    side: Side
    prompt: Literal["own", "anchor"]
    noisy: Literal["of prediction", "of target"] = "of prediction"


def questions_of(objective: Objective) -> list[Question]:
    """All predictions needed to evaluate an objective on a batch, without repetition."""
    questions = [Question("student", "forget", "own"), *questions_of_target(objective.unlearn.target, "forget")]
    if objective.retain is not None:
        questions += [Question("student", "retain", "own"), *questions_of_target(objective.retain.target, "retain")]
    return list(dict.fromkeys(questions))


def questions_of_target(target: Target, side: Side) -> list[Question]:
    """The predictions needed to compute a target noise."""
    match target:
        case FrozenModel(prompt=prompt):
            return [Question("teacher", side, prompt)]
        case CurrentModel(prompt=prompt, gradient=gradient, posterior=posterior):
            predictor: Literal["student", "detached student"] = (
                "student" if gradient == "through" else "detached student"
            )
            return [Question(predictor, side, prompt, "of prediction" if posterior == "shared" else "of target")]
        case GuidedModel():
            return [Question("teacher", side, "anchor"), Question("teacher", side, "own")]
        case GaussianNoise() | UniformNoise():
            return []
