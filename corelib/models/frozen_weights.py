"""Weights that do not train, in the format in which autocast computes with them."""

from __future__ import annotations

import torch
from torch import nn

ROUNDED_LAYERS = (nn.Linear, nn.Conv2d)
"""The layers of these networks whose inputs and weights autocast rounds; normalisations keep fp32 weights."""


def round_frozen_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Round the frozen weights of linear and convolutional layers once, as autocast would in every pass.

    A pass under autocast to `dtype` computes the same bits as before, without these casts. fp32 changes nothing.

    Args:
        network: the network, which is changed in place. Parameters that require gradients keep their type.
        dtype: the format of autocast.
    """
    for layer in network.modules():
        if isinstance(layer, ROUNDED_LAYERS):
            for name, parameter in list(layer.named_parameters(recurse=False)):
                if not parameter.requires_grad and parameter.dtype != dtype:
                    setattr(layer, name, nn.Parameter(parameter.to(dtype), requires_grad=False))
