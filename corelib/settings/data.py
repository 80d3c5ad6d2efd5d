"""Settings of slicing and encoding: the forget and retain sets, the images to encode, the prompts to embed."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from corelib.settings.section import Section


class SliceStage(Section):
    """The forget and retain sets of one task: every listed style x object x image index."""

    forget: list[str]
    retain: list[str]
    objects: list[str]
    images: list[PositiveInt]


class Encoding(Section):
    """Preprocessing of images for the autoencoder: central square crop, resize to `resolution` pixels, no flips."""

    resolution: PositiveInt
    interpolation: Literal["bicubic", "lanczos", "bilinear"]
    batch: PositiveInt


class LatentsStage(Section):
    """The images whose latent moments are cached."""

    styles: list[str]
    objects: list[str]
    images: list[PositiveInt]
    encoding: Encoding


class EmbeddingsStage(Section):
    """The prompts to embed, without repetition: those of training, or those of evaluation."""

    prompts: list[str]
