"""The judge of sampled images: a classifier that was trained on the classes, or CLIP, which was not (zero-shot)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from PIL import Image
from torch import Tensor


class Judge(ABC):
    """Recognises what an image shows.

    Attributes:
        classes: names of the classes.
    """

    classes: list[str]

    @abstractmethod
    def probabilities(self, images: Sequence[Image.Image]) -> Tensor:
        """Class probabilities, (len(images), classes)."""

    def __call__(self, images: Sequence[Image.Image]) -> list[str]:
        """The name of the most probable class of each image."""
        return [self.classes[number] for number in self.probabilities(images).argmax(dim=1).tolist()]
