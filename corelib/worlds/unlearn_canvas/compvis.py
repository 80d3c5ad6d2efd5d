"""The base model from a CompVis checkpoint: the same networks under other names, raw or averaged, in one file.

diffusers knows the names. What it does not do: it executes what a pickle says, takes a missing average for None, and
leaves out what it does not know; here nothing is executed, and every tensor of a network has to arrive.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from torch import Tensor

from corelib.errors import AssetError, reason_of
from corelib.files.atomic import folder_written_whole
from corelib.files.hashing import sha256_of
from corelib.files.torch_files import read_plain_weights
from corelib.models.pipeline_parts import NETWORKS, build_network
from corelib.models.state_dicts import UnfitWeights, check_finite, check_fit, give_weights
from corelib.runs.stage import Outcome, Work
from corelib.settings.unlearn_canvas import ConversionStage

UNET, AVERAGE = "model.diffusion_model.", "model_ema.diffusion_model"

AUTOENCODER, TEXT_ENCODER = "first_stage_model.", "cond_stage_model.transformer.text_model."

USED = (UNET, AVERAGE, AUTOENCODER, TEXT_ENCODER)
"""How the names of all tensors begin that may be used; others are the noise schedule's, and of the training."""

FROM_TRAINING = ("pytorch_lightning.", "lightning.", "omegaconf.")
"""Whose objects a training leaves beside the weights: callbacks, configurations, counters. None is needed."""


def convert_compvis(settings: ConversionStage, work: Work) -> Outcome:
    """Stage: a diffusers folder with the weights of a CompVis checkpoint.

    Architecture, tokenizer and noise schedule are those of the diffusers folder among the assets; its weights are not
    read. Raises `AssetError` if the file is no such checkpoint, lacks a tensor, has one too many, or one that is not
    finite.
    """
    pipeline, checkpoint = work.inputs["pipeline"], work.inputs["compvis"]
    said = checkpoint.facts["compvis"]
    path = checkpoint.outside(said["weights"], said["sha256"])
    like = pipeline.place(pipeline.facts["pipeline"])
    for part in ("tokenizer", "scheduler"):
        pipeline.outside(f"{pipeline.facts['pipeline']}/{part}", pipeline.facts["parts"][part])
    with folder_written_whole(work.folder / "pipeline") as folder:
        for name, converted in _converted(path, like, settings.weights):
            with _said_of(path, converted.prefix, converted.network):
                give_weights(converted.network, converted.weights)
            converted.network.save_pretrained(folder / name)
        for part in ("tokenizer", "scheduler"):
            shutil.copytree(like / part, folder / part)
    parts = {part.name: sha256_of(part) for part in sorted((work.folder / "pipeline").iterdir())}
    return Outcome(["pipeline"], {"pipeline": "pipeline", "unet": "unet", "parts": parts})


def check_compvis(path: Path, like: Path | None, chosen: str | None, values: bool) -> None:
    """Raise `AssetError` if `convert_compvis` would, without loading the weights.

    Args:
        path: of the checkpoint.
        like: the diffusers folder whose networks it has weights for; None if only the file itself is there to look at.
        chosen: `raw` or `ema`; None as above.
        values: whether to read all values and see that they are finite.
    """
    if like is None or chosen is None:
        weights = read_checkpoint(path)
        if values:
            with _said_of(path, "", None):
                check_finite({name: weights[name] for name in weights if name.startswith(USED)})
        return
    for _, converted in _converted(path, like, chosen):
        with _said_of(path, converted.prefix, converted.network):
            check_fit(converted.weights, converted.network.state_dict())
            if values:
                check_finite(converted.weights)


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


@dataclass(frozen=True)
class _Converted:
    """A network without weights, and those that a checkpoint has for it by the network's own names."""

    prefix: str
    network: Any
    weights: dict[str, Tensor]


def _converted(path: Path, like: Path, chosen: str) -> Iterator[tuple[str, _Converted]]:
    """The networks of a checkpoint, by the folders of their parts. Raises `AssetError` if a tensor is left over."""
    weights = read_checkpoint(path)
    unet = build_network(NETWORKS["unet"], like / "unet")
    own = _of_unet(path, weights, chosen)
    yield "unet", _renamed(path, UNET, unet, convert_ldm_unet_checkpoint, own)
    autoencoder = build_network(NETWORKS["vae"], like / "vae")
    own = {name: tensor for name, tensor in weights.items() if name.startswith(AUTOENCODER)}
    yield "vae", _renamed(path, AUTOENCODER, autoencoder, convert_ldm_vae_checkpoint, own)
    text_encoder = build_network(NETWORKS["text_encoder"], like / "text_encoder")
    own = {name: weights[name] for name in weights if name.startswith(TEXT_ENCODER)}
    own = {name.removeprefix(TEXT_ENCODER): tensor for name, tensor in own.items()}
    renamed = NETWORKS["text_encoder"].renamed(own, text_encoder)
    yield "text_encoder", _Converted(TEXT_ENCODER, text_encoder, renamed)


def _of_unet(path: Path, weights: Mapping[str, Tensor], chosen: str) -> dict[str, Tensor]:
    names = [name.removeprefix(UNET) for name in weights if name.startswith(UNET)]
    if chosen == "raw":
        return {UNET + name: weights[UNET + name] for name in names}
    averages = {name: AVERAGE + name.replace(".", "") for name in names}
    if missing := [average for average in averages.values() if average not in weights]:
        raise AssetError(
            f"{path}: it lacks the average {missing[0]}, and {len(missing) - 1} more of {len(names)}, expected all "
            "(or world.assets.weights: raw)."
        )
    return {UNET + name: weights[average] for name, average in averages.items()}


def _renamed(path: Path, prefix: str, network: Any, convert: Any, weights: Mapping[str, Tensor]) -> _Converted:
    """The weights by diffusers' names. It leaves out what it does not know, and takes some missing ones for None."""
    with _said_of(path, prefix, network):
        try:
            converted: Mapping[str, Tensor | None] = convert(dict(weights), dict(network.config))
        except (KeyError, ValueError, IndexError, AttributeError) as error:  # of names that it takes for granted
            raise UnfitWeights(f"diffusers cannot rename them: {reason_of(error)}") from None
    found = {name: tensor for name, tensor in converted.items() if tensor is not None}
    own = network.state_dict()
    if len(found) != len(weights) and not own.keys() - found.keys():
        raise AssetError(
            f"{path}: {prefix}* has {len(weights)} tensors, expected the {len(own)} of {type(network).__name__}."
        )
    return _Converted(prefix, network, found)


@contextmanager
def _said_of(path: Path, prefix: str, network: Any) -> Iterator[None]:
    try:
        yield
    except UnfitWeights as error:
        of = f"{prefix}* are not the weights of {type(network).__name__}" if network is not None else "not usable"
        raise AssetError(f"{path}: {of} ({error}).") from None
