"""The base model, a diffusers pipeline: its noise predictor as student and teacher, deltas to its cross-attention."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.func import functional_call
from transformers import CLIPTextModel, CLIPTokenizer

from corelib.artefacts import Manifest, written_whole
from corelib.devices import Device
from corelib.errors import ArtefactError, AssetError, reason_of
from corelib.pipeline_parts import AUTOENCODER, TEXT_ENCODER, UNET, load_network, load_scheduler, load_tokenizer
from corelib.settings.trained import Trained
from corelib.state_dicts import UnfitWeights, check_fit

DELTA = "delta.safetensors"
DELTA_FORMAT = "corelib delta 2"
CROSS_ATTENTION = "attn2"
"""What diffusers calls the cross-attention of a transformer block."""

TRAINED: Mapping[Trained, tuple[str, ...]] = {
    "cross_attention": (f"{CROSS_ATTENTION}.",),
    "keys_and_values": (f"{CROSS_ATTENTION}.to_k.", f"{CROSS_ATTENTION}.to_v."),
}
"""Parts of the names of the tensors that are trained."""


class BaseModel:
    """The parts of the base model, each checked and loaded when it is asked for, in fp32 and without gradients."""

    def __init__(self, world: Manifest) -> None:
        self.folder = world.place(world.facts["pipeline"])
        self._world = world
        self._unet: str = world.facts["unet"]
        self._sha256: Mapping[str, str] = world.facts["parts"]

    @property
    def identity(self) -> str:
        """The sha256 of the U-Net, to which deltas belong."""
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

    def scheduler(self, **switches: Any) -> DDIMScheduler:
        """DDIM over the base model's own noise schedule, whatever scheduler its folder names by default."""
        return load_scheduler(self._part("scheduler"), **switches)

    def _part(self, part: str) -> Path:
        """The folder of a part, whose files are those that were taken into use."""
        return self._world.outside(f"{self._world.facts['pipeline']}/{part}", self._sha256[part])


class StudentAndTeacher:
    """One U-Net as two noise predictors: the student in training, and the frozen pre-trained teacher.

    The teacher is the same module called with saved copies of the trained tensors, so that a second U-Net need
    not be kept; swapping the tensors in place would corrupt a pending backward pass.
    """

    def __init__(self, unet: UNet2DConditionModel, trained: Trained, device: Device) -> None:
        self.device = device
        self.unet = unet.to(device.torch_device).requires_grad_(False)
        self.trained = trained_tensors(unet, trained)
        for parameter in self.trained.values():
            parameter.requires_grad_(True)
        self._frozen = {name: parameter.detach().clone() for name, parameter in self.trained.items()}

    def student(self, noisy: Tensor, timesteps: Tensor, prompts: Tensor) -> Tensor:
        """eps_theta(x_t, p): noise of shape (batch, channels, h, w) in fp32."""
        with self.device.autocast():
            answer: Tensor = self.unet(noisy, timesteps, encoder_hidden_states=prompts).sample
        return answer.float()

    @torch.no_grad()
    def teacher(self, noisy: Tensor, timesteps: Tensor, prompts: Tensor) -> Tensor:
        """eps_theta*(x_t, p): as `student`, with the pre-trained weights and without gradients."""
        with self.device.autocast():
            asked = {"sample": noisy, "timestep": timesteps, "encoder_hidden_states": prompts}
            answer: Tensor = functional_call(self.unet, self._frozen, args=(), kwargs=asked).sample
        return answer.float()


def guided(both: Tensor, scale: float) -> Tensor:
    """e_0 + s (e_p - e_0), classifier-free guidance.

    Args:
        both: e_0 of every image, without its prompt, and then e_p of every image, (2 batch, ...).
        scale: s; at 1 it is e_p.
    """
    without, with_prompt = both.chunk(2)
    return without + scale * (with_prompt - without)


def trained_tensors(unet: UNet2DConditionModel, trained: Trained) -> dict[str, torch.nn.Parameter]:
    """The parameters that are trained, by name, in a fixed order: those with `attn2` in their name, or a part of them.

    Raises `AssetError` if the U-Net has none.
    """
    found = {
        name: parameter
        for name, parameter in sorted(unet.named_parameters())
        if any(part in name for part in TRAINED[trained])
    }
    if not found:
        raise AssetError("the U-Net has no cross-attention: no parameter has `attn2` in its name.")
    return found


def save_delta(path: Path, tensors: Mapping[str, Tensor], trained: Trained, base: str, run: str) -> None:
    """Write the trained tensors with the identity of the base model they belong to."""
    kept = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in tensors.items()}
    with written_whole(path) as temporary:
        # One entry of metadata: safetensors writes several in a random order, and equal deltas must be equal files.
        header = json.dumps({"format": DELTA_FORMAT, "base": base, "run": run, "trained": trained}, sort_keys=True)
        save_file(kept, temporary, metadata={"delta": header})


def load_delta(path: Path, unet: UNet2DConditionModel, base: str) -> None:
    """Put a delta's tensors into the U-Net it was trained from.

    Raises `ArtefactError` if the file is damaged, was made for another base model, or names other tensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = _header(path, file.metadata())
            if header["base"] != base:
                raise ArtefactError(
                    f"{path}: made for the base model {header['base'][:12]}, "
                    f"but the base model here is {base[:12]}, expected the same."
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    except (SafetensorError, OSError) as error:
        raise ArtefactError(
            f"{path}: the delta is damaged ({reason_of(error)}); delete it and ask for the target again."
        ) from None
    trained = trained_tensors(unet, header["trained"])
    if differing := sorted(trained.keys() ^ tensors.keys()):
        raise ArtefactError(
            f"{path}: its tensors are not the cross-attention's; the first that differs: {differing[0]}."
        )
    try:
        check_fit(tensors, trained)
    except UnfitWeights as error:
        raise ArtefactError(f"{path}: not a delta of this U-Net ({error}).") from None
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[name])


def _header(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads((metadata or {})["delta"])
        known = header["format"] == DELTA_FORMAT and isinstance(header["base"], str) and header["trained"] in TRAINED
    except (KeyError, TypeError, ValueError):
        known = False
    if not known:
        raise ArtefactError(f"{path}: not a delta, expected the format {DELTA_FORMAT!r} in its header.")
    return header
