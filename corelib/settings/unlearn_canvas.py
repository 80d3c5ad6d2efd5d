"""Where the assets of the paper's world lie."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from corelib.settings.section import Section


class Assets(Section):
    """The user's own files, relative to the working directory; nothing here is ever written or deleted.

    Attributes:
        images: folder with STYLE/OBJECT/INDEX.jpg.
        pipeline: diffusers folder of the base model.
        unet: which of its two U-Nets is used.
        style_classifier, object_classifier: the benchmark's ViT-L checkpoints (`model_state_dict`).
        classifier_architecture: their timm name.
        classifier_resolution: the side to which images are resized for them, in pixels.
        inception: TorchScript file of the Inception network that FID uses.
    """

    images: str
    pipeline: str
    unet: Literal["unet", "unet_ema"]
    style_classifier: str
    object_classifier: str
    classifier_architecture: str
    classifier_resolution: PositiveInt
    inception: str


class AdoptionStage(Section):
    """Everything that taking the assets into use reads."""

    assets: Assets
    styles: list[str]
    objects: list[str]
    images_per_cell: PositiveInt


class ConversionStage(Section):
    """Which weights of a CompVis checkpoint are taken: `raw`, those in training, or `ema`, their moving average."""

    weights: Literal["raw", "ema"]
