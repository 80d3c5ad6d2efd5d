"""Count the memory that training and sampling need on a GPU, on a machine without one.

    python benchmarks/memory.py

Runs a CORE step, with its backward pass, and a batch of sampling with the networks of Stable Diffusion v1.5, whose
tensors have shapes but no values, and adds up the tensors that exist at the same time. Arithmetic is bf16 as on a GPU,
where autocast normalises in fp32. Not counted: the CUDA context, workspaces of libraries, and gaps between tensors.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers import AutoencoderKL
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).resolve().parent))

from counts import SIZES, Size, make_trainer, unet_of

from corelib.models.frozen_weights import round_frozen_weights
from corelib.unlearning import trainer

AUTOENCODER = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
"""The autoencoder of Stable Diffusion v1.5."""

BLOCK = 512
"""Sizes of tensors in GPU memory are multiples of this, in bytes."""


def main() -> None:
    """Print the numbers of `corelib/costs/gpu_memory.py`."""
    size = SIZES["Stable Diffusion v1.5"]
    few, many = (training_bytes(size, pairs) for pairs in (1, 4))
    per_latent = (many - few) / 6  # a pair to forget and one to retain for each of the three pairs more
    print(f"training: {many / 1e9:.2f} GB for CORE with 8 latents; {(many - 8 * per_latent) / 1e9:.2f} GB", end="")
    print(f" and {per_latent / 1e9:.2f} GB for each latent", flush=True)
    few, many = (prediction_bytes(size, latents) for latents in (2, 32))
    per_latent = (many - few) / 30
    print(f"sampling, U-Net: {many / 1e9:.2f} GB for 16 guided images; {(many - 32 * per_latent) / 1e9:.2f} GB", end="")
    print(f" and {per_latent / 1e9:.3f} GB for each latent", flush=True)
    few, many = (decoding_bytes(count) for count in (1, 4))
    per_image = (many - few) / 3
    print(f"decoding: {many / 1e9:.2f} GB for 4 images; {(many - 4 * per_image) / 1e9:.2f} GB", end="")
    print(f" and {per_image / 1e9:.2f} GB for each image", flush=True)


def training_bytes(size: Size, pairs: int) -> int:
    """Peak of two steps of CORE with `pairs` forget pairs and as many retain pairs."""
    with _like_a_gpu() as memory:
        unet = unet_of(size)
        memory.begin(unet)
        training = make_trainer(unet, size, _Device(), pairs)
        for step in range(2):
            training.train_step(step)
        return memory.peak


def prediction_bytes(size: Size, latents: int) -> int:
    """Peak of the noise predictions of a step of sampling."""
    with _like_a_gpu() as memory, torch.no_grad():
        unet = unet_of(size).requires_grad_(False)
        round_frozen_weights(unet, torch.bfloat16)
        side, width = unet.config["sample_size"], unet.config["cross_attention_dim"]
        noisy, prompts = torch.empty(latents, 4, side, side), torch.empty(latents, size.tokens, width)
        memory.begin(unet)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            unet(noisy, torch.zeros(latents, dtype=torch.int64), encoder_hidden_states=prompts)
        return memory.peak


def decoding_bytes(images: int) -> int:
    """Peak of the decoding of some images in fp32."""
    with _like_a_gpu() as memory, torch.no_grad():
        autoencoder = AutoencoderKL(**AUTOENCODER)
        latents = torch.empty(images, 4, 64, 64)
        memory.begin(autoencoder)
        autoencoder.decode(latents)
        return memory.peak


class _Device:
    """Computes in bf16."""

    torch_device = torch.device("cpu")
    dtype = torch.bfloat16

    @contextmanager
    def autocast(self) -> Iterator[None]:
        with torch.autocast("cpu", dtype=self.dtype):
            yield


@contextmanager
def _like_a_gpu() -> Iterator[_Memory]:
    """Compute with tensors without values, and normalise in fp32."""
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        mock.patch.object(F, "group_norm", _in_fp32(F.group_norm)),
        mock.patch.object(F, "layer_norm", _in_fp32(F.layer_norm)),
        mock.patch.object(trainer, "FUSED_ON", ("cpu",)),
        _Memory() as memory,
    ):
        yield memory


def _in_fp32(normalise: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def normalise_in_fp32(values: Tensor, *arguments: Any, **options: Any) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return normalise(values.float(), *arguments, **options)

    return normalise_in_fp32


class _Memory(TorchDispatchMode):
    """Adds up the tensors that exist at the same time.

    Attributes:
        peak: the largest sum so far, in bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sizes: dict[int, int] = {}
        self._now = self.peak = 0
        self._is_running = False

    def begin(self, network: torch.nn.Module) -> None:
        """Forget what was before, except the network; from now on, work without its tensors is that of the host."""
        self._is_running = True
        self._sizes, self._now, self.peak = {}, 0, 0
        for parameter in network.parameters():
            self._add(parameter)

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = -(-storage.nbytes() // BLOCK) * BLOCK
        self._now += self._sizes[key]
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._remove, key)

    def _remove(self, key: int) -> None:
        self._now -= self._sizes.pop(key, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._is_running and not any(isinstance(leaf, FakeTensor) for leaf in tree_leaves((args, kwargs))):
            with unset_fake_temporarily():  # the work on the host, which needs values
                return func(*args, **kwargs)
        outputs = func(*args, **kwargs)
        for leaf in tree_leaves(outputs):
            if isinstance(leaf, FakeTensor):
                self._add(leaf)
        return outputs


if __name__ == "__main__":
    main()
