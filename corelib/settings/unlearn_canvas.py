"""The assets of the paper's world: where they lie, which is no content, and what they are, which is."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from corelib.settings.section import Section


class Assets(Section):
    """The user's own files, relative to the working directory or absolute. Jobs never write there.

    Attributes:
        images: the benchmark, as a folder STYLE/OBJECT/INDEX.jpg or as the Hub's parquet files.
        image_index: what each of its images is; `make assets` writes it.
        pipeline: diffusers folder of the base model.
        compvis: a CompVis checkpoint from which U-Net, autoencoder and text encoder are taken instead; architecture,
            tokenizer and noise schedule stay those of `pipeline`.
        weights: of the U-Net; `raw`, those in training, or `ema`, their moving average.
        style_classifier, object_classifier: the benchmark's ViT-L checkpoints (`model_state_dict`).
        classifier_architecture: their timm name.
        classifier_resolution: the side to which images are resized for them, in pixels.
        inception: TorchScript file of the Inception network that clean-fid uses.
        inception_torchvision: weights of torchvision's Inception, which the benchmark's own FID uses.
    """

    images: str
    image_index: str
    pipeline: str
    compvis: str | None
    weights: Literal["raw", "ema"]
    style_classifier: str
    object_classifier: str
    classifier_architecture: str
    classifier_resolution: PositiveInt
    inception: str
    inception_torchvision: str | None


class ClassifierForm(Section):
    """What a checkpoint does not say of its classifier: timm's name, the side of its images, its classes in order."""

    architecture: str
    resolution: PositiveInt
    classes: list[str]


class AdoptionStage(Section):
    """What some of the assets are, wherever they lie. Each that is used for itself is a run, and changes alone.

    Attributes:
        sha256: of each file or folder that is used, by its name in the lock; None as long as it is not locked.
        unet: the folder of the pipeline in which the U-Net lies; None where no pipeline is taken into use.
        classifiers: the form of each classifier that is, by what it tells apart: `style` or `object`.
    """

    sha256: dict[str, str | None]
    unet: Literal["unet", "unet_ema"] | None
    classifiers: dict[str, ClassifierForm]


class ConversionStage(Section):
    """Which weights of a CompVis checkpoint are taken: `raw`, those in training, or `ema`, their moving average."""

    weights: Literal["raw", "ema"]
