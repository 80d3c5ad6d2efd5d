"""The judge of sampled images: a classifier that was trained on the classes, or CLIP, which was not (zero-shot)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from PIL import Image
from torch import Tensor

from corelib.models.classifier import ImageClassifier
from corelib.models.device import Device
from corelib.runs.manifest import Manifest


class Judge(Protocol):
    """Recognises what an image shows.

    Attributes:
        classes: names of the classes.
    """

    classes: list[str]

    def probabilities(self, images: Sequence[Image.Image]) -> Tensor:
        """Class probabilities, (len(images), classes)."""


def load_judge(world: Manifest, label: str, device: Device) -> Judge:
    """The judge of a label, `style` or `object`, that a world has.

    Raises `AssetError` or `ArtefactError` if its files or its description do not fit.
    """
    facts = world.facts["classifiers"][label]
    if "prompts" not in facts:
        return ImageClassifier.of_run(world, label, device)
    from corelib.models.zero_shot import ZeroShotClassifier  # imported here: most judges do not need transformers

    folder = world.verified_external(facts["weights"], facts["sha256"])
    return ZeroShotClassifier(folder, facts["classes"], facts["prompts"], device.torch_device)
