"""Accuracies from predictions and from classifiers, and the Frechet distance, as the workflow computes them."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image
from support.miniature import render, shipped_classifier

from corelib.errors import ArtefactError, AssetError, ConfigurationError
from corelib.evaluation.metrics import count_metrics
from corelib.library import Count, evaluate_styles, frechet_distance, predict_concepts
from corelib.settings.evaluation import CellsStage

PREDICTIONS = {
    "style": ["A", "A", "A", "B", "B", "C"],
    "object": ["x", "y", "y", "x", "y", "x"],
    "predicted_style": ["B", "A", "C", "B", "A", "C"],
    "predicted_object": ["x", "x", "y", "x", "y", "y"],
}


def test_the_counts_are_those_of_the_definitions() -> None:
    counts = evaluate_styles(PREDICTIONS, ["A"])
    assert counts == {"UA": Count(2, 3), "IRA": Count(2, 3), "CRA": Count(4, 6)}
    assert str(counts["UA"].percent) == "66.67"
    low, high = counts["UA"].interval()
    assert (low, high) == pytest.approx((20.7655, 93.8508), abs=1e-3)  # Wilson, by its formula with z = 1.95996


def test_the_counts_are_those_of_the_workflow() -> None:
    grid = [(style, object_, 1) for style in ("A", "B") for object_ in ("x", "y")]
    table = pd.DataFrame(grid, columns=["style", "object", "seed"])
    table["predicted_style"], table["predicted_object"] = ["A", "B", "B", "B"], ["x", "x", "y", "y"]
    cells = CellsStage(forget=["A"], retain=["B"], objects=["x", "y"], seeds=[1])
    assert evaluate_styles(table, ["A"]) == count_metrics(table, cells)


@pytest.mark.parametrize(
    ("predictions", "forget", "message"),
    [
        ({"style": ["A"]}, ["A"], "predictions has no column 'predicted_style', expected style, predicted_style"),
        (PREDICTIONS, "A", "forget is 'A', expected a list of at least one style"),
        (PREDICTIONS, ["D"], "forget has 'D', expected styles of the images: A, B, C"),
        (PREDICTIONS, ["A", "B", "C"], "predictions has no image of a retained style"),
    ],
)
def test_predictions_that_cannot_be_counted_are_an_error(predictions: Any, forget: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        evaluate_styles(predictions, forget)


def test_the_shipped_classifiers_recognise_the_styles_and_objects_of_renderings() -> None:
    concepts = [("Sky_Waves", "Circles"), ("Sky_Waves", "Crosses"), ("Amber_Dots", "Hearts")]
    images = [render(style, object_, 20) for style, object_ in concepts]
    table = predict_concepts(images, concepts, shipped_classifier("style"), shipped_classifier("object"), batch=2)
    assert list(table["predicted_style"]) == ["Sky_Waves", "Sky_Waves", "Amber_Dots"]
    assert list(table["predicted_object"]) == ["Circles", "Crosses", "Hearts"]
    assert evaluate_styles(table, ["Sky_Waves"]) == {"UA": Count(0, 2), "IRA": Count(1, 1), "CRA": Count(3, 3)}


def test_a_classifier_sees_every_image_once_in_batches() -> None:
    images = [Image.new("RGB", (2, 2), (level, 0, 0)) for level in range(5)]
    seen: list[list[int]] = []

    def name(part: list[Image.Image]) -> list[str]:
        seen.append([image.getpixel((0, 0))[0] for image in part])  # type: ignore[index]
        return ["A"] * len(part)

    predict_concepts(images, [("A", "x")] * 5, name, name, batch=2)
    assert seen == [[0, 1], [2, 3], [4], [0, 1], [2, 3], [4]]


def test_a_classifier_that_returns_another_number_of_names_is_an_error() -> None:
    images = [Image.new("RGB", (2, 2))] * 2
    with pytest.raises(ArtefactError, match="the style classifier returned 1 names for 2 images, expected one for"):
        predict_concepts(images, [("A", "x")] * 2, lambda _: ["A"], lambda _: ["A"])


def test_images_without_concepts_are_an_error() -> None:
    with pytest.raises(ConfigurationError, match="1 images and 2 concepts, expected one for each image"):
        predict_concepts([Image.new("RGB", (2, 2))], [("A", "x")] * 2, lambda _: ["A"], lambda _: ["A"])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 2), r"shape \(3, 2\) in torch.float32 .* convert them with `.double\(\)`"),
        (torch.zeros(3, 2).double(), torch.zeros(3, 4).double(), r"expected \(images, d\) in torch.float64 for both"),
        (torch.full((3, 2), torch.nan).double(), torch.zeros(3, 2).double(), "features that are not finite"),
        (torch.zeros(1, 2).double(), torch.zeros(3, 2).double(), "at least two of each"),
    ],
)
def test_features_without_a_distance_are_an_error(first: Any, second: Any, message: str) -> None:
    with pytest.raises(AssetError, match=message):
        frechet_distance(first, second)


def test_the_distance_of_two_gaussians_on_a_line() -> None:
    """(mu_1 - mu_2)^2 + (sigma_1 - sigma_2)^2."""
    first, second = torch.tensor([[0.0], [2.0]]).double(), torch.tensor([[3.0], [7.0]]).double()
    assert frechet_distance(first, second) == pytest.approx(16 + (8**0.5 - 2**0.5) ** 2)


def test_concepts_without_objects_have_no_cra() -> None:
    images = [Image.new("RGB", (4, 4), (shade, 0, 0)) for shade in (0, 90, 200, 250)]
    names = {0: "cat", 90: "dog", 200: "dog", 250: "cat"}
    concepts = ["cat", "cat", "dog", "dog"]
    table = predict_concepts(images, concepts, lambda part: [names[image.getpixel((0, 0))[0]] for image in part])
    counts = evaluate_styles(table, ["cat"])
    assert {name: (count.k, count.n) for name, count in counts.items()} == {"UA": (1, 2), "IRA": (1, 2)}
    assert counts == evaluate_styles({"style": concepts, "predicted_style": list(names.values())}, ["cat"])
