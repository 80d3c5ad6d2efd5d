"""The functions for use in other programs; docs/library.md introduces them.

    from corelib.library import unlearn, apply_delta

They are compositions of the objects of which the stages of the workflow consist, and compute the same numbers. An error
in an argument, an image or a file is a `UserError` with one sentence: what was found, and what to do.
"""

from corelib.errors import UserError
from corelib.evaluation.fid import frechet_distance
from corelib.evaluation.metrics import Count
from corelib.in_memory.delta_application import apply_delta
from corelib.in_memory.paper_methods import methods
from corelib.in_memory.style_evaluation import evaluate_styles, predict_concepts
from corelib.in_memory.unlearning import UnlearnedModel, unlearn
from corelib.models.classifier import ImageClassifier
from corelib.models.delta import Delta, read_delta
from corelib.models.zero_shot import ZeroShotClassifier

__all__ = [
    "Count",
    "Delta",
    "ImageClassifier",
    "UnlearnedModel",
    "UserError",
    "ZeroShotClassifier",
    "apply_delta",
    "evaluate_styles",
    "frechet_distance",
    "methods",
    "predict_concepts",
    "read_delta",
    "unlearn",
]
