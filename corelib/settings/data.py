"""Settings of slicing and encoding: the forget and retain sets, the images to encode, the prompts to embed."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from corelib.settings.section import Section


class SliceStage(Section):
    """Settings of the stage `slices`: the forget and the retain set of one task, style x object x image index."""

    forget: list[str]
    retain: list[str]
    objects: list[str]
    images: list[PositiveInt]


class Encoding(Section):
    """Preprocessing of images for the autoencoder: central square crop, resize to `resolution` pixels, no flips.

    Attributes:
        resolution: side of the resized images, in pixels.
        interpolation: filter of the resizing.
        batch: number of images that are encoded together.
    """

    resolution: PositiveInt
    interpolation: Literal["bicubic", "lanczos", "bilinear"]
    batch: PositiveInt


class LatentsStage(Section):
    """Settings of the stage `latents`: the images whose latent moments are cached."""

    styles: list[str]
    objects: list[str]
    images: list[PositiveInt]
    encoding: Encoding


class EmbeddingsStage(Section):
    """Settings of the stage `embeddings`: the prompts of training, or those of evaluation, without repetition."""

    prompts: list[str]
