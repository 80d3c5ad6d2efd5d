"""What sampling reads: the scheduler, guidance, and the grid of images."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from corelib.concepts import Wording
from corelib.settings.precision import Precision
from corelib.settings.section import Section


class DDIM(Section):
    """The DDIM scheduler's switches; the noise schedule itself belongs to the base model."""

    steps: PositiveInt
    eta: float = Field(ge=0, le=1)
    steps_offset: int = Field(ge=0)
    set_alpha_to_one: bool
    clip_sample: bool
    timestep_spacing: Literal["leading", "trailing", "linspace"]


class Sampling(Section):
    """How images are generated (protocol, section 3).

    `batch` is part of the address of an image's bits: image i is always in batch i // batch, in slot i % batch, and the
    last batch is padded, so neither shards nor interruptions change what is computed together.
    """

    scheduler: DDIM
    guidance_scale: float = Field(ge=0)
    negative_prompt: str
    resolution: PositiveInt
    batch: PositiveInt
    jpeg_quality: int = Field(ge=1, le=100)
    precision: Precision


class SamplesStage(Section):
    """Everything that sampling one model reads.

    `grid` lists the images as (style, object, seed), in label order.
    """

    sampling: Sampling
    wording: Wording
    grid: list[tuple[str, str, int]]
