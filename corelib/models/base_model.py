"""The base model: a diffusers pipeline whose parts are verified and loaded on demand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from transformers import CLIPTextModel, CLIPTokenizer

from corelib.models.pipeline_parts import AUTOENCODER, TEXT_ENCODER, UNET, load_network, load_scheduler, load_tokenizer
from corelib.runs.manifest import Manifest


class BaseModel:
    """The parts of the base model. Each part is verified and loaded on demand, in fp32 and without gradients."""

    def __init__(self, world: Manifest) -> None:
        self.folder = world.place(world.facts["pipeline"])
        self._world = world
        self._unet: str = world.facts["unet"]
        self._sha256: Mapping[str, str] = world.facts["parts"]

    @property
    def unet_sha256(self) -> str:
        """Sha256 of the U-Net. Each delta records the U-Net that it was trained from."""
        return self._sha256[self._unet]

    def unet(self) -> UNet2DConditionModel:
        """The noise predictor eps_theta*."""
        return load_network(UNET, self._part(self._unet))

    def autoencoder(self) -> AutoencoderKL:
        """The latent autoencoder (E and D of section 2)."""
        return load_network(AUTOENCODER, self._part("vae"))

    def text_encoder(self) -> CLIPTextModel:
        """The text encoder."""
        return load_network(TEXT_ENCODER, self._part("text_encoder"))

    def tokenizer(self) -> CLIPTokenizer:
        """The tokenizer of the text encoder."""
        return load_tokenizer(self._part("tokenizer"))

    def scheduler(self, **overrides: Any) -> DDIMScheduler:
        """A DDIM scheduler with the base model's noise schedule, whatever scheduler class its folder names."""
        return load_scheduler(self._part("scheduler"), **overrides)

    def _part(self, part: str) -> Path:
        """The folder of a part, verified against the sha256 in the manifest."""
        return self._world.verified_external(f"{self._world.facts['pipeline']}/{part}", self._sha256[part])
