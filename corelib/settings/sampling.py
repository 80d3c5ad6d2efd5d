"""Settings of sampling: the scheduler, guidance, and the grid of images."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from corelib.settings.ddim import DDIMConfig
from corelib.settings.kernels import Kernels
from corelib.settings.precision import Precision
from corelib.settings.prompts import Wording
from corelib.settings.section import Section


class DDIMSampling(DDIMConfig):
    """The DDIM scheduler, its number of steps, and `eta`, the share of new noise in each step.

    Attributes:
        steps: number of steps from noise to image.
        eta: share of new noise in each step; 0 is deterministic DDIM.
    """

    steps: PositiveInt
    eta: float = Field(ge=0, le=1)


class Decoding(Section):
    """How latents become images.

    Attributes:
        batch: number of images that are decoded together; fewer need less memory. Another number changes images by
            rounding only.
        precision: format in which the autoencoder computes.
    """

    batch: PositiveInt
    precision: Precision


class Sampling(Section):
    """How images are generated (protocol, section 3).

    The bits of an image depend on `batch`: image i is always in slot i % batch of batch i // batch, and the last batch
    is padded. Neither shards nor interruptions change which images are computed together.

    Attributes:
        guidance_scale: scale of classifier-free guidance.
        negative_prompt: prompt of the unconditional prediction.
        resolution: side of the sampled images, in pixels.
        batch: number of images that are sampled together.
        jpeg_quality: quality with which the images are saved.
        precision: format in which the U-Net computes.
        kernels: kernels of the U-Net.
    """

    scheduler: DDIMSampling
    guidance_scale: float = Field(ge=0)
    negative_prompt: str
    resolution: PositiveInt
    batch: PositiveInt
    jpeg_quality: int = Field(ge=1, le=100)
    precision: Precision
    kernels: Kernels
    decoding: Decoding


class SamplesStage(Section):
    """Settings of the stage `samples`, which samples the images of one model.

    `grid` lists the images as (style, object, seed), in label order.
    """

    sampling: Sampling
    wording: Wording
    grid: list[tuple[str, str, int]]
