"""The kernels with which a U-Net computes: PyTorch's own, or those that `torch.compile` generates."""

from __future__ import annotations

import os
import shutil

import torch
from torch import nn

from corelib.errors import DeviceError
from corelib.settings.kernels import Kernels


def set_kernels(network: nn.Module, kernels: Kernels) -> None:
    """Make a network compute with the configured kernels. Names and values of its parameters stay as they are.

    The network is compiled in its first forward pass, and not again as long as the shapes of its inputs stay the same.
    Raises `DeviceError` if it is to be compiled on a machine without a C++ compiler.
    """
    if kernels.channels_last:
        network.to(memory_format=torch.channels_last)
    if kernels.compile is not None:
        if compiler_fault := missing_compiler():
            raise DeviceError(compiler_fault)
        network.compile(mode=kernels.compile, dynamic=False, fullgraph=True)


def missing_compiler() -> str | None:
    """A sentence if this machine has no C++ compiler, which `torch.compile` needs for its kernels; else None."""
    names = [os.environ.get("CXX", "g++"), "g++", "clang++"]
    if any(shutil.which(name) for name in names):
        return None
    tried = ", ".join(dict.fromkeys(names))
    return f"no C++ compiler ({tried}) is in PATH, which `kernels.compile` needs; install one, or set `compile: null`."


def begin_step(kernels: Kernels) -> None:
    """Allow CUDA graphs to reuse the memory of the outputs of earlier steps."""
    if kernels.compile == "reduce-overhead":
        torch.compiler.cudagraph_mark_step_begin()
