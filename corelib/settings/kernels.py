"""Settings of the kernels with which a U-Net computes."""

from __future__ import annotations

from typing import Literal

from corelib.settings.section import Section


class Kernels(Section):
    """Which kernels compute the predictions of a U-Net. Another choice changes results by rounding only.

    Attributes:
        compile: mode of `torch.compile`, None for none. "reduce-overhead" records CUDA graphs, which only a GPU has.
        channels_last: whether weights of convolutions have the memory format in which tensor cores read them.
    """

    compile: Literal["default", "reduce-overhead"] | None
    channels_last: bool
