"""Settings of the user's assets: images, models and classifiers.

Addresses of runs depend on the content of the assets, not on their location.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import PositiveInt

from corelib.settings.section import Section


class Assets(Section):
    """Paths of the user's files, relative to the working directory or absolute. Jobs never write there.

    Attributes:
        images: the benchmark, as a folder STYLE/OBJECT/INDEX.jpg or as the Hub's parquet files; in a world of the
            user's images, a folder CONCEPT/FILE or CONCEPT/OBJECT/FILE.
        image_index: index of the images; `make assets` writes it. None for a file in `assets/` with a name made of that
            of `images`.
        pipeline: diffusers folder of the base model.
        compvis: CompVis checkpoint that replaces the weights of U-Net, autoencoder and text encoder; architecture,
            tokenizer and noise schedule stay those of `pipeline`.
        weights: weights of the U-Net to use: `raw`, as trained, or `ema`, their moving average.
        style_classifier, object_classifier: the benchmark's ViT-L checkpoints (`model_state_dict`), or timm classifiers
            of the user's.
        clip: folder of a CLIP model, which classifies without training, in a world of the user's images.
        classifier_architecture: timm name of both classifiers.
        classifier_resolution: side to which images are resized for the classifiers, in pixels.
        inception: TorchScript file of the Inception network that clean-fid uses.
        inception_torchvision: weights of torchvision's Inception, which the benchmark's own FID uses.
    """

    images: str
    image_index: str | None
    pipeline: str
    compvis: str | None
    weights: Literal["raw", "ema"]
    style_classifier: str | None
    object_classifier: str | None
    classifier_architecture: str
    classifier_resolution: PositiveInt
    inception: str | None
    inception_torchvision: str | None
    clip: str | None

    @property
    def index_path(self) -> str:
        """Path of the index of the images."""
        if self.image_index is not None:
            return self.image_index
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", self.images).strip("-.") or "images"
        return f"assets/{name}.images.parquet"


class ClassifierSpec(Section):
    """Facts that a classifier's checkpoint lacks: timm name, side of its input in pixels, classes in order."""

    architecture: str
    resolution: PositiveInt
    classes: list[str]


class ZeroShotSpec(Section):
    """Classes for CLIP in order, and the prompt that stands for each."""

    classes: list[str]
    prompts: list[str]


class AdoptionStage(Section):
    """Settings of the stage `assets`: the content of some of the assets, wherever they are stored.

    Assets that are used separately are adopted by separate runs, so that each can change without the others.

    Attributes:
        sha256: hash of each file or folder in use, by its name in the lock; None until it is locked.
        unet: subfolder of the pipeline with the U-Net; None if the run adopts no pipeline.
        classifiers: form of each classifier that the run adopts, by its label: `style` or `object`.
    """

    sha256: dict[str, str | None]
    unet: Literal["unet", "unet_ema"] | None
    classifiers: dict[str, ClassifierSpec | ZeroShotSpec]


class ConversionStage(Section):
    """Settings of the stage `conversion`: the weights of a CompVis checkpoint to use, `raw` or their average `ema`."""

    weights: Literal["raw", "ema"]
