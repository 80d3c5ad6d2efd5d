"""In which floating-point format a model computes."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from corelib.settings.section import Section


class Precision(Section):
    """The dtype of the compute, by device; trained parameters and the decoding of images stay in fp32."""

    gpu: Literal["fp32", "bf16", "fp16"]
    cpu: Literal["fp32", "bf16"]


class TrainingPrecision(Precision):
    """The same where gradients are computed, which need the range of fp32 and bf16."""

    gpu: Literal["fp32", "bf16"]

    @field_validator("gpu", mode="before")
    @classmethod
    def _has_the_range_of_gradients(cls, said: object) -> object:
        if said == "fp16":
            raise ValueError("'fp32' or 'bf16': small gradients are 0 in fp16, and losses are not scaled here")
        return said
