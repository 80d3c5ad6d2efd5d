"""What slicing and encoding read: which images belong to the forget and the retain set."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from corelib.settings.section import Section


class SliceStage(Section):
    """The forget and the retain set of one task: every listed style x object x image index."""

    forget: list[str]
    retain: list[str]
    objects: list[str]
    images: list[PositiveInt]


class Encoding(Section):
    """How an image enters the autoencoder: central square crop, then resized to `resolution` pixels, never flipped."""

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
    """The prompts that are embedded, each once: those of training, or those of evaluation."""

    prompts: list[str]
