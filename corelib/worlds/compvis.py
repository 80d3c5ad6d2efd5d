"""The base model from a CompVis checkpoint: the same networks under other names, raw or averaged, in one file.

diffusers knows the names. What it does not do: it executes what a pickle says, takes a missing average for None, and
leaves out what it does not know; here nothing is executed, and every tensor of a network has to arrive.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from corelib.artefacts import folder_written_whole, sha256_of
from corelib.errors import AssetError
from corelib.settings.unlearn_canvas import ConversionStage
from corelib.weights import read_plain_weights
from corelib.work import Outcome, Work

UNET, AVERAGE = "model.diffusion_model.", "model_ema.diffusion_model"
AUTOENCODER, TEXT_ENCODER = "first_stage_model.", "cond_stage_model.transformer.text_model."

NO_WEIGHT = ("embeddings.position_ids",)
"""Buffers that old checkpoints contain and the pinned text encoder makes itself."""

FROM_TRAINING = ("pytorch_lightning.", "lightning.", "omegaconf.", "numpy.")
"""Whose objects a training leaves beside the weights: callbacks, configurations, counters. None is needed."""


def convert_compvis(settings: ConversionStage, work: Work) -> Outcome:
    """Stage: a diffusers folder with the weights of a CompVis checkpoint.

    Architecture, tokenizer and noise schedule are those of the diffusers folder among the assets; its weights are not
    read. Raises `AssetError` if the file is no such checkpoint, lacks a tensor, or has one too many.
    """
    pipeline, checkpoint = work.inputs["pipeline"], work.inputs["compvis"]
    said = checkpoint.facts["compvis"]
    path = checkpoint.outside(said["weights"], said["sha256"])
    like = pipeline.place(pipeline.facts["pipeline"])
    for part in ("tokenizer", "scheduler"):
        pipeline.outside(f"{pipeline.facts['pipeline']}/{part}", pipeline.facts["parts"][part])
    weights = read_checkpoint(path)
    with folder_written_whole(work.folder / "pipeline") as folder:
        _unet(path, weights, like / "unet", settings.weights).save_pretrained(folder / "unet")
        _autoencoder(path, weights, like / "vae").save_pretrained(folder / "vae")
        _text_encoder(path, weights, like / "text_encoder").save_pretrained(folder / "text_encoder")
        for part in ("tokenizer", "scheduler"):
            shutil.copytree(like / part, folder / part)
    parts = {part.name: sha256_of(part) for part in sorted((work.folder / "pipeline").iterdir())}
    return Outcome(["pipeline"], {"pipeline": "pipeline", "unet": "unet", "parts": parts})


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a Lightning checkpoint's `state_dict`, or of a safetensors file, by their names.

    Nothing in the file is executed. Objects that a training leaves beside the weights become empty shells; a file that
    names anything else is refused. Raises `AssetError`.
    """
    content = read_plain_weights(path, "a CompVis checkpoint", FROM_TRAINING, mapped=True)
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not any(str(name).startswith(UNET) for name in weights):
        raise AssetError(f"{path}: no tensor's name starts with `{UNET}`, expected a CompVis checkpoint.")
    return {name: tensor for name, tensor in weights.items() if isinstance(tensor, Tensor)}


def _unet(path: Path, weights: Mapping[str, Tensor], like: Path, chosen: str) -> Any:
    names = [name.removeprefix(UNET) for name in weights if name.startswith(UNET)]
    if chosen == "ema":
        averages = {name: AVERAGE + name.replace(".", "") for name in names}
        if missing := [average for average in averages.values() if average not in weights]:
            raise AssetError(
                f"{path}: it lacks the average {missing[0]}, and {len(missing) - 1} more of {len(names)}, expected all "
                "(or world.assets.weights: raw)."
            )
        own = {UNET + name: weights[average] for name, average in averages.items()}
    else:
        own = {UNET + name: weights[UNET + name] for name in names}
    model = _untrained(UNet2DConditionModel, like)
    return _with_weights(path, UNET, model, convert_ldm_unet_checkpoint(own, dict(model.config)), len(own))


def _autoencoder(path: Path, weights: Mapping[str, Tensor], like: Path) -> Any:
    own = {name: tensor for name, tensor in weights.items() if name.startswith(AUTOENCODER)}
    model = _untrained(AutoencoderKL, like)
    return _with_weights(path, AUTOENCODER, model, convert_ldm_vae_checkpoint(own, dict(model.config)), len(own))


def _text_encoder(path: Path, weights: Mapping[str, Tensor], like: Path) -> Any:
    own = {name.removeprefix(TEXT_ENCODER): weights[name] for name in weights if name.startswith(TEXT_ENCODER)}
    own = {name: tensor for name, tensor in own.items() if name not in NO_WEIGHT}
    with torch.device("meta"):
        model = CLIPTextModel(CLIPTextConfig.from_pretrained(str(like)))
    flat = {name.removeprefix("text_model.") for name in model.state_dict()}
    prefix = "text_model." if flat != set(model.state_dict()) else ""  # by the version of transformers
    return _with_weights(path, TEXT_ENCODER, model, {prefix + name: own[name] for name in own}, len(own))


def _untrained(kind: Any, like: Path) -> Any:
    """A network of the architecture that a diffusers folder says, without weights."""
    with torch.device("meta"):
        return kind.from_config(kind.load_config(str(like), local_files_only=True))


def _with_weights(path: Path, prefix: str, model: Any, converted: Mapping[str, Tensor], count: int) -> Any:
    """The network with its tensors, in fp32: every one that it has, and every one that the file has for it."""
    own = model.state_dict()
    if missing := sorted(own.keys() - converted.keys()):
        raise AssetError(
            f"{path}: {prefix}* has no tensor for {missing[0]} of {type(model).__name__}, nor for {len(missing) - 1} "
            f"more of {len(own)}, expected all."
        )
    if len(converted) != count or len(own) != count:
        raise AssetError(f"{path}: {prefix}* has {count} tensors, expected the {len(own)} of {type(model).__name__}.")
    for name, tensor in converted.items():
        if tensor.shape != own[name].shape:
            raise AssetError(
                f"{path}: the tensor for {name} has shape {tuple(tensor.shape)}, expected {tuple(own[name].shape)}."
            )
    model.load_state_dict({name: tensor.float() for name, tensor in converted.items()}, assign=True)
    return model
