"""The model from which the training of a task starts: the pre-trained one, or that of the task before in a sequence."""

from __future__ import annotations

from collections.abc import Mapping

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from corelib.models.base_model import BaseModel
from corelib.models.delta import DELTA_FILE, load_delta
from corelib.runs.manifest import Manifest

START_ROLE = "start"
"""The role of the delta of the task before; a task that is after no other has none."""


def starting_unet(base: BaseModel, inputs: Mapping[str, Manifest]) -> UNet2DConditionModel:
    """The U-Net of the base model, with the weights that the task before has left. Raises as `load_delta` does."""
    unet = base.unet()
    if START_ROLE in inputs:
        load_delta(inputs[START_ROLE].file(DELTA_FILE), unet, base.unet_sha256)
    return unet


def earlier_divergence(inputs: Mapping[str, Manifest]) -> int | None:
    """The step at which the training of an earlier task diverged; None if none did."""
    step: int | None = inputs[START_ROLE].facts["diverged_at"] if START_ROLE in inputs else None
    return step
