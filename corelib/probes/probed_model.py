"""The noise predictor of the model that a probe examines."""

from __future__ import annotations

from collections.abc import Mapping

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from corelib.models.base_model import BaseModel
from corelib.models.delta import DELTA_FILE, load_delta
from corelib.models.device import Device
from corelib.runs.manifest import Manifest

DELTA_ROLE = "delta"
"""The role of the unlearned model among the inputs; without it, the probe examines the original model."""


def probed_unet(base: BaseModel, inputs: Mapping[str, Manifest], device: Device) -> UNet2DConditionModel:
    """The U-Net of the probed model, without gradients and on the device."""
    unet = base.unet()
    if DELTA_ROLE in inputs:
        load_delta(inputs[DELTA_ROLE].file(DELTA_FILE), unet, base.unet_sha256)
    return unet.to(device.torch_device).requires_grad_(False)


def earlier_divergence(inputs: Mapping[str, Manifest]) -> int | None:
    """The step at which the training of the probed model diverged, if it did."""
    step: int | None = inputs[DELTA_ROLE].facts["diverged_at"] if DELTA_ROLE in inputs else None
    return step
