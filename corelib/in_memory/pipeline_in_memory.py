"""A diffusers pipeline in memory: checks, copies of its networks as the loaders make them, and its identity."""

from __future__ import annotations

import hashlib
import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from corelib.errors import AssetError, short_message
from corelib.files.hashing import sha256_of_path
from corelib.models.config_checks import check_noise_schedule, check_settings
from corelib.models.pipeline_parts import AUTOENCODER, TEXT_ENCODER, UNET, Part, load_network
from corelib.models.state_dicts import build_empty, copy_weights
from corelib.models.weight_checks import WeightsMismatch

log = logging.getLogger(__name__)

PARTS = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "tokenizer": CLIPTokenizer,
}
"""Parts of a pipeline that unlearning needs, besides the scheduler, and their classes."""

TENSORS = "tensors-"
"""Beginning of an identity that is a sha256 of tensors. An identity without it is the sha256 of a folder."""


class PipelineInMemory:
    """The parts of the user's pipeline. It is only read; training and encoding use copies of its networks.

    Args:
        pipeline: a `StableDiffusionPipeline`, or any object with the same attributes `unet`, `vae`, `text_encoder`,
            `tokenizer` and `scheduler`.

    Raises `AssetError` if a part is missing or of another class, or if the model is not built like Stable Diffusion v1
    or v2 (other inputs than noise, timestep and text, or a prediction of something else than the noise).
    """

    def __init__(self, pipeline: Any) -> None:
        for name, kind in PARTS.items():
            if not isinstance(part := getattr(pipeline, name, None), kind):
                raise AssetError(
                    f"pipeline.{name} is {type(part).__name__}, expected {kind.__name__}, as in a pipeline of Stable "
                    "Diffusion v1."
                )
        for name in ("unet", "vae"):
            check_settings(name, f"pipeline.{name}.config", getattr(pipeline, name))
        self._pipeline = pipeline
        scheduler = self.scheduler()
        check_noise_schedule("pipeline.scheduler.config", scheduler, dict(pipeline.scheduler.config))
        for name in ("unet", "vae", "text_encoder"):
            if any(tensor.is_meta for tensor in getattr(pipeline, name).state_dict().values()):
                raise AssetError(
                    f"pipeline.{name} has tensors without values, expected all of them in memory; load the pipeline "
                    "without offloading."
                )

    def progress_bar(self, steps: int) -> AbstractContextManager[Any]:
        """The progress bar of the pipeline, which `set_progress_bar_config` configures; None for another object."""
        make = getattr(self._pipeline, "progress_bar", None)
        return nullcontext() if make is None else make(total=steps)

    @property
    def device(self) -> torch.device:
        """The device of the U-Net."""
        device: torch.device = self._pipeline.unet.device
        return device

    @property
    def factor(self) -> int:
        """The factor by which the autoencoder divides the resolution."""
        factor: int = 2 ** (len(self._pipeline.vae.config["block_out_channels"]) - 1)
        return factor

    @property
    def resolution(self) -> int:
        """Side of the images for which the U-Net was built, in pixels."""
        size = self._pipeline.unet.config["sample_size"]
        if not isinstance(size, int):
            raise AssetError(f"pipeline.unet.config.sample_size is {size}, expected a number; give the `resolution`.")
        return size * self.factor

    @property
    def scaling_factor(self) -> float:
        """Factor of the latents."""
        return float(self._pipeline.vae.config["scaling_factor"])

    @property
    def tokenizer(self) -> CLIPTokenizer:
        """The tokenizer of the text encoder."""
        return self._pipeline.tokenizer

    def unet(self) -> UNet2DConditionModel:
        """A copy of the U-Net in fp32 on the CPU. Raises `AssetError` if a weight is not finite, or is not its own."""
        return _copy(UNET, "unet", self._pipeline.unet)

    def autoencoder(self) -> AutoencoderKL:
        """A copy of the autoencoder in fp32 on the CPU. Raises as `unet` does."""
        return _copy(AUTOENCODER, "vae", self._pipeline.vae)

    def text_encoder(self) -> CLIPTextModel:
        """A copy of the text encoder in fp32 on the CPU. Raises as `unet` does."""
        return _copy(TEXT_ENCODER, "text_encoder", self._pipeline.text_encoder)

    def scheduler(self, **overrides: Any) -> DDIMScheduler:
        """A DDIM scheduler with the pipeline's noise schedule, whatever the class of its scheduler is."""
        try:
            return DDIMScheduler.from_config(self._pipeline.scheduler.config, **overrides)
        except Exception as error:  # which one depends on the class of the scheduler
            raise AssetError(
                f"pipeline.scheduler: DDIM cannot use its noise schedule ({short_message(error)})."
            ) from None

    # Identity

    @property
    def unet_folder(self) -> Path | None:
        """The folder from which the U-Net was loaded, if it is known and exists."""
        name = self._pipeline.unet.config.get("_name_or_path")
        folder = Path(str(name)) if name else None
        return folder if folder is not None and (folder / "config.json").is_file() else None

    def folder_identity(self, rounded: bool) -> str | None:
        """The sha256 of the U-Net's folder, by which the workflow identifies a base model.

        None if there is no folder, or if the U-Net in memory does not have the folder's weights.

        Args:
            rounded: whether weights of the folder that were rounded to the U-Net's type in memory count as the same.
        """
        folder = self.unet_folder
        if folder is None:
            return None
        try:
            on_disk = load_network(UNET, folder).state_dict()
        except AssetError as error:
            log.warning("%s", error)
            return None
        in_memory = self._pipeline.unet.state_dict()
        is_same = on_disk.keys() == in_memory.keys() and all(
            _is_same(tensor, on_disk[name], rounded) for name, tensor in in_memory.items()
        )
        return sha256_of_path(folder) if is_same else None

    def tensors_identity(self) -> str:
        """The sha256 of the names, shapes and values in fp32 of all tensors of the U-Net."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self._pipeline.unet.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().to("cpu", torch.float32).contiguous().reshape(-1).numpy().tobytes())
        return TENSORS + digest.hexdigest()


def _is_same(in_memory: Tensor, on_disk: Tensor, rounded: bool) -> bool:
    if in_memory.dtype != on_disk.dtype and not rounded:
        return False
    return torch.equal(in_memory.detach().cpu(), on_disk.to(in_memory.dtype))


def _copy(part: Part, name: str, network: Any) -> Any:
    """A copy of a network, made as the loaders make one from a folder: in fp32, for inference, without gradients."""
    config = network.config.to_dict() if isinstance(network, CLIPTextModel) else dict(network.config)
    copy = build_empty(lambda: part.build(config))
    try:
        copy_weights(copy, network.state_dict())
    except WeightsMismatch as error:
        raise AssetError(
            f"pipeline.{name}: not the weights of {part.kind.__name__} alone ({error}); unload adapters before "
            "unlearning, and check the model."
        ) from None
    return copy.eval().requires_grad_(False)
