"""What an objective asks of the noise predictors: which of them, about which pairs, with which prompts. No tensors."""

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
    """What a noise predictor is asked: which predictor, about which pairs, with which of their prompts and x_t."""

    predictor: Literal["student", "detached student", "teacher"]
    side: Side
    prompt: Literal["own", "anchor"]
    noisy: Literal["of prediction", "of target"] = "of prediction"


def questions_of(objective: Objective) -> list[Question]:
    """Everything that has to be asked to know an objective's loss at a batch, each question once."""
    asked = [Question("student", "forget", "own"), *questions_of_target(objective.unlearn.target, "forget")]
    if objective.retain is not None:
        asked += [Question("student", "retain", "own"), *questions_of_target(objective.retain.target, "retain")]
    return list(dict.fromkeys(asked))


def questions_of_target(target: Target, side: Side) -> list[Question]:
    """What has to be asked to know a target noise."""
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
