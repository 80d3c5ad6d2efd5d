"""What sampling reads: the scheduler, guidance, and the grid of images."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from corelib.settings.ddim import Switches
from corelib.settings.precision import Precision
from corelib.settings.prompts import Wording
from corelib.settings.section import Section


class DDIM(Switches):
    """The DDIM scheduler with the number of its steps, and their share of new noise."""

    steps: PositiveInt
    eta: float = Field(ge=0, le=1)


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
