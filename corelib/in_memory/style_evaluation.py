"""The paper's accuracies of images that the user has sampled, from predictions or from the user's own classifiers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from PIL import Image

from corelib.errors import ArtefactError, ConfigurationError, listed
from corelib.evaluation.metrics import Count, count_correct

PREDICTED = ("style", "predicted_style")
"""Columns that a table of predictions must have."""

PREDICTED_OBJECTS = ("object", "predicted_object")
"""Columns of concepts that have objects."""

NamePredictor = Callable[[list[Image.Image]], Sequence[str]]
"""Returns the name of the predicted class of each image."""


def evaluate_styles(predictions: pd.DataFrame | Mapping[str, Sequence[Any]], forget: Sequence[str]) -> dict[str, Count]:
    """UA, IRA and CRA of sampled images (section 4.1 of the paper).

    UA counts the images prompted with a forget style that are not classified as that style. IRA counts the images
    prompted with another style that are classified as it. CRA counts all images that are classified as the prompted
    object.

    Args:
        predictions: one row for each image, with the columns `style` and `predicted_style`, and for CRA also `object`
            and `predicted_object`; `predict_concepts` makes such a table, and so does the workflow
            (`predictions.parquet`).
        forget: the styles that were unlearned.

    Returns the counts by name. `count.k` of `count.n` images are right, `count.percent` is the accuracy in percent, and
    `count.interval()` its Wilson 95 % interval in percent.

    Raises `ConfigurationError` if a column is missing, if a forget style has no image, or if no retained style has one.
    """
    table = pd.DataFrame(predictions)
    if missing := [column for column in PREDICTED if column not in table.columns]:
        raise ConfigurationError(f"predictions has no column {missing[0]!r}, expected {', '.join(PREDICTED)}.")
    if isinstance(forget, str) or not len(forget):
        raise ConfigurationError(f"forget is {forget!r}, expected a list of at least one style.")
    styles = dict.fromkeys(table["style"])
    if absent := [style for style in forget if style not in styles]:
        raise ConfigurationError(f"forget has {absent[0]!r}, expected styles of the images: {listed([*styles], 10)}.")
    if set(styles) == set(forget):
        raise ConfigurationError("predictions has no image of a retained style, expected some: IRA counts them.")
    without = {column: None for column in PREDICTED_OBJECTS if column not in table.columns}
    return count_correct(table.assign(seed=range(len(table)), **without), forget)


def predict_concepts(
    images: Sequence[Image.Image],
    concepts: Sequence[tuple[str, str]] | Sequence[str],
    predict_styles: NamePredictor,
    predict_objects: NamePredictor | None = None,
    batch: int = 32,
) -> pd.DataFrame:
    """The predictions of two classifiers for sampled images, one row for each image, as `evaluate_styles` reads them.

    Args:
        images: the sampled images.
        concepts: style and object in the prompt of each image, or its style alone.
        predict_styles: the classifier of styles: a function from a list of images to the names of the predicted
            classes. A `corelib.library.ImageClassifier` is such a function, and so is a `ZeroShotClassifier`.
        predict_objects: the classifier of objects, if concepts have objects.
        batch: maximum number of images in a call of a classifier.

    Raises `ConfigurationError` if the numbers of images and concepts differ, and `ArtefactError` if a classifier
    returns another number of names.
    """
    if not len(images) or len(images) != len(concepts):
        raise ConfigurationError(f"{len(images)} images and {len(concepts)} concepts, expected one for each image.")
    if batch < 1:
        raise ConfigurationError(f"batch is {batch}, expected at least 1.")
    pairs = [(concept, None) if isinstance(concept, str) else concept for concept in concepts]
    table = pd.DataFrame(pairs, columns=["style", "object"])
    table["predicted_object"] = None
    for label, predict in (("style", predict_styles), ("object", predict_objects)):
        if predict is None:
            continue
        names: list[str] = []
        for start in range(0, len(images), batch):
            part = list(images[start : start + batch])
            predicted = list(predict(part))
            if len(predicted) != len(part):
                raise ArtefactError(
                    f"the {label} classifier returned {len(predicted)} names for {len(part)} images, expected one for "
                    "each."
                )
            names += predicted
        table[f"predicted_{label}"] = names
    return table
