"""Floating-point formats in which models compute."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from corelib.settings.section import Section


class Precision(Section):
    """Compute dtype by device; trained parameters stay in fp32.

    Attributes:
        gpu: dtype on a GPU.
        cpu: dtype on a CPU.
    """

    gpu: Literal["fp32", "bf16", "fp16"]
    cpu: Literal["fp32", "bf16"]


class TrainingPrecision(Precision):
    """Precision of training: gradients need the range of fp32 or bf16."""

    gpu: Literal["fp32", "bf16"]

    @field_validator("gpu", mode="before")
    @classmethod
    def _reject_fp16(cls, value: object) -> object:
        if value == "fp16":
            raise ValueError("'fp32' or 'bf16': small gradients are 0 in fp16, and losses are not scaled here")
        return value
