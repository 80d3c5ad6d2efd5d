"""The noise predictor as student and frozen teacher, in one module."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from torch.func import functional_call

from corelib.models.frozen_weights import ROUNDED_LAYERS, round_frozen_weights
from corelib.models.trained_parameters import trained_parameters
from corelib.settings.trainable import TrainableTensors


class ComputeDevice(Protocol):
    """A device, and the precision in which the noise predictor computes on it; `corelib.models.device` has a job's."""

    torch_device: torch.device
    dtype: torch.dtype

    def autocast(self) -> AbstractContextManager[None]:
        """A block for one forward pass in the configured precision."""


class StudentAndTeacher:
    """One U-Net as two noise predictors: the student in training, and the teacher, frozen with the weights given here.

    The teacher is the same module called with saved copies of the trained tensors, so no second U-Net is needed.
    Swapping the tensors in place would corrupt a pending backward pass.
    """

    def __init__(self, unet: UNet2DConditionModel, trained: TrainableTensors, device: ComputeDevice) -> None:
        self.device = device
        self.unet = unet.to(device.torch_device).requires_grad_(False)
        self.trained = trained_parameters(unet, trained)
        for parameter in self.trained.values():
            parameter.requires_grad_(True)
        self._frozen = {name: parameter.detach().clone() for name, parameter in self.trained.items()}

    def round_frozen_weights(self) -> None:
        """Round the weights that do not train once, instead of in every pass; no prediction changes by a bit.

        The trained tensors stay in fp32. Gradients of other weights would no longer be those of fp32 weights.
        """
        round_frozen_weights(self.unet, self.device.dtype)
        for name, tensor in self._frozen.items():
            if isinstance(self.unet.get_submodule(name.rpartition(".")[0]), ROUNDED_LAYERS):
                self._frozen[name] = tensor.to(self.device.dtype)

    def student(self, noisy: Tensor, timesteps: Tensor, prompts: Tensor) -> Tensor:
        """eps_theta(x_t, p): noise of shape (batch, channels, h, w) in fp32."""
        with self.device.autocast():
            predicted: Tensor = self.unet(noisy, timesteps, encoder_hidden_states=prompts).sample
        return predicted.float()

    @torch.no_grad()
    def teacher(self, noisy: Tensor, timesteps: Tensor, prompts: Tensor) -> Tensor:
        """eps_theta*(x_t, p): like `student`, with the weights before training and without gradients."""
        with self.device.autocast():
            inputs = {"sample": noisy, "timestep": timesteps, "encoder_hidden_states": prompts}
            predicted: Tensor = functional_call(self.unet, self._frozen, args=(), kwargs=inputs).sample
        return predicted.float()
