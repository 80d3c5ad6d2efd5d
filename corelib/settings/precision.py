"""In which floating-point format a model computes."""

from __future__ import annotations

from typing import Literal

from corelib.settings.section import Section


class Precision(Section):
    """The dtype of the compute, by device; trained parameters and the decoding of images stay in fp32."""

    gpu: Literal["fp32", "bf16", "fp16"]
    cpu: Literal["fp32", "bf16"]
