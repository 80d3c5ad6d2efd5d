"""Classifiers: timm models with the benchmark's preprocessing, loaded from checkpoints in the benchmark's format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor

from corelib.errors import ArtefactError
from corelib.models.classifier_checkpoint import load_classifier
from corelib.models.device import Device
from corelib.models.judge import Judge
from corelib.runs.manifest import Manifest

MAX_RESOLUTION = 4096
"""Maximum side, in pixels, of the square to which an image is resized before classification."""


class ImageClassifier(Judge):
    """A timm classifier with the benchmark's preprocessing: resize to a square, [-1, 1], no crop.

    Args:
        weights: checkpoint in one of the usual formats.
        architecture: the network's name in timm.
        classes: names of the classes, in the order of the outputs.
        resolution: side of the square in pixels.
        device: device of the network.

    Raises `AssetError` if the checkpoint does not hold exactly this network's weights, or they are not finite.
    """

    def __init__(
        self, weights: Path, architecture: str, classes: list[str], resolution: int, device: torch.device
    ) -> None:
        self.classes = classes
        self.resolution = resolution
        self.device = device
        self.model = load_classifier(weights, architecture, len(classes)).to(device)

    @classmethod
    def of_run(cls, world: Manifest, label: str, device: Device) -> ImageClassifier:
        """The classifier of styles or of objects that a run has trained or adopted.

        Raises `ArtefactError` if its description is invalid.
        """
        facts = world.facts["classifiers"][label]
        if not _is_valid_description(facts["architecture"], facts["classes"], facts["resolution"]):
            raise ArtefactError(
                f"{world.folder}: invalid description of the {label} classifier, expected a timm architecture, "
                f"a list of class names and a resolution from 1 to {MAX_RESOLUTION}."
            )
        path = world.verified_external(facts["weights"], facts["sha256"])
        return cls(path, facts["architecture"], facts["classes"], facts["resolution"], device.torch_device)

    def preprocess(self, image: Image.Image) -> Tensor:
        """Preprocess an image into the classifier's input, (3, side, side) in [-1, 1]."""
        if image.size != (self.resolution, self.resolution):
            image = image.resize((self.resolution, self.resolution), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.asarray(image, dtype=np.float32)).permute(2, 0, 1) / 255.0
        return (pixels - 0.5) / 0.5

    @torch.no_grad()
    def probabilities(self, images: Sequence[Image.Image]) -> Tensor:
        """Class probabilities, (len(images), classes)."""
        batch = torch.stack([self.preprocess(image) for image in images])
        return self.model(batch.to(self.device)).float().softmax(dim=1).cpu()

    @torch.no_grad()
    def features(self, pixels: Tensor) -> Tensor:
        """Pooled features before the last layer, (n, d), of images (n, 3, side, side) in [0, 255]."""
        normalised = (pixels.to(self.device) / 255.0 - 0.5) / 0.5
        return self.model.forward_head(self.model.forward_features(normalised), pre_logits=True)


def _is_valid_description(architecture: object, classes: object, resolution: object) -> bool:
    """Whether a description suffices to build a classifier, and has nothing that makes timm load another network."""
    return (
        isinstance(architecture, str)
        and timm.is_model(architecture)
        and isinstance(classes, list)
        and all(isinstance(name, str) for name in classes)
        and isinstance(resolution, int)
        and 0 < resolution <= MAX_RESOLUTION
    )
