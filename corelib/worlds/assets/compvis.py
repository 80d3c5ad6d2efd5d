"""The base model from a CompVis checkpoint: the same networks under other names, raw or averaged, in one file.

diffusers knows the names. Its own loader executes the code in a pickle, treats a missing average as None, and drops
unknown tensors. Here no code is executed, and every tensor of a network must be present.
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

from corelib.errors import AssetError, short_message
from corelib.files.atomic import atomic_folder
from corelib.files.hashing import sha256_of_path
from corelib.files.torch_files import read_plain_weights
from corelib.models.pipeline_parts import NETWORKS, build_network
from corelib.models.state_dicts import copy_weights
from corelib.models.weight_checks import WeightsMismatch, check_finite, check_fit
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.assets import ConversionStage

UNET_PREFIX, AVERAGE_PREFIX = "model.diffusion_model.", "model_ema.diffusion_model"

AUTOENCODER_PREFIX, TEXT_ENCODER_PREFIX = "first_stage_model.", "cond_stage_model.transformer.text_model."

USED_PREFIXES = (UNET_PREFIX, AVERAGE_PREFIX, AUTOENCODER_PREFIX, TEXT_ENCODER_PREFIX)
"""Prefixes of the names of all tensors that may be used; others belong to the noise schedule or to training."""

TRAINING_OBJECTS = ("pytorch_lightning.", "lightning.", "omegaconf.")
"""Name prefixes of unneeded objects that training saves beside the weights: callbacks, configurations, counters."""


def convert_compvis(settings: ConversionStage, context: StageContext) -> StageResult:
    """Stage: build a diffusers folder with the weights of a CompVis checkpoint.

    Architecture, tokenizer and noise schedule are those of the diffusers folder among the assets; its weights are not
    read. Raises `AssetError` if the file is not such a checkpoint, or if a tensor is missing, left over or not finite.
    """
    pipeline, checkpoint = context.inputs["pipeline"], context.inputs["compvis"]
    file = checkpoint.facts["compvis"]
    path = checkpoint.verified_external(file["weights"], file["sha256"])
    template = pipeline.place(pipeline.facts["pipeline"])
    for part in ("tokenizer", "scheduler"):
        pipeline.verified_external(f"{pipeline.facts['pipeline']}/{part}", pipeline.facts["parts"][part])
    with atomic_folder(context.folder / "pipeline") as folder:
        for name, converted in _convert(path, template, settings.weights):
            with _as_asset_error(path, converted.prefix, converted.network):
                copy_weights(converted.network, converted.weights)
            converted.network.save_pretrained(folder / name)
        for part in ("tokenizer", "scheduler"):
            shutil.copytree(template / part, folder / part)
    parts = {part.name: sha256_of_path(part) for part in sorted((context.folder / "pipeline").iterdir())}
    return StageResult(["pipeline"], {"pipeline": "pipeline", "unet": "unet", "parts": parts})


def check_compvis(path: Path, template: Path | None, variant: str | None, values: bool) -> None:
    """Raise `AssetError` if `convert_compvis` would, without loading the weights.

    Args:
        path: the checkpoint.
        template: diffusers folder with the configurations of the networks; None to check the checkpoint alone.
        variant: `raw` or `ema`; None to check the checkpoint alone.
        values: whether to read all values and check that they are finite.
    """
    if template is None or variant is None:
        weights = read_checkpoint(path)
        if values:
            with _as_asset_error(path, "", None):
                check_finite({name: weights[name] for name in weights if name.startswith(USED_PREFIXES)})
        return
    for _, converted in _convert(path, template, variant):
        with _as_asset_error(path, converted.prefix, converted.network):
            check_fit(converted.weights, converted.network.state_dict())
            if values:
                check_finite(converted.weights)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a Lightning checkpoint's `state_dict`, or of a safetensors file, by name.

    No code in the file is executed. Objects that training saves beside the weights become empty stubs; a file that
    names any other object is rejected. Raises `AssetError`.
    """
    content = read_plain_weights(path, "a CompVis checkpoint", TRAINING_OBJECTS, mapped=True)
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not any(str(name).startswith(UNET_PREFIX) for name in weights):
        raise AssetError(f"{path}: no tensor's name starts with `{UNET_PREFIX}`, expected a CompVis checkpoint.")
    return {name: tensor for name, tensor in weights.items() if isinstance(tensor, Tensor)}


@dataclass(frozen=True)
class _Converted:
    """A network without weights, and its weights from a checkpoint under the network's own names."""

    prefix: str
    network: Any
    weights: dict[str, Tensor]


def _convert(path: Path, template: Path, variant: str) -> Iterator[tuple[str, _Converted]]:
    """The networks of a checkpoint, by folder name. Raises `AssetError` if a tensor is left over."""
    weights = read_checkpoint(path)
    unet = build_network(NETWORKS["unet"], template / "unet")
    tensors = _unet_weights(path, weights, variant)
    yield "unet", _rename(path, UNET_PREFIX, unet, convert_ldm_unet_checkpoint, tensors)
    autoencoder = build_network(NETWORKS["vae"], template / "vae")
    tensors = {name: tensor for name, tensor in weights.items() if name.startswith(AUTOENCODER_PREFIX)}
    yield "vae", _rename(path, AUTOENCODER_PREFIX, autoencoder, convert_ldm_vae_checkpoint, tensors)
    text_encoder = build_network(NETWORKS["text_encoder"], template / "text_encoder")
    tensors = {name: weights[name] for name in weights if name.startswith(TEXT_ENCODER_PREFIX)}
    tensors = {name.removeprefix(TEXT_ENCODER_PREFIX): tensor for name, tensor in tensors.items()}
    renamed = NETWORKS["text_encoder"].renamed(tensors, text_encoder)
    yield "text_encoder", _Converted(TEXT_ENCODER_PREFIX, text_encoder, renamed)


def _unet_weights(path: Path, weights: Mapping[str, Tensor], variant: str) -> dict[str, Tensor]:
    names = [name.removeprefix(UNET_PREFIX) for name in weights if name.startswith(UNET_PREFIX)]
    if variant == "raw":
        return {UNET_PREFIX + name: weights[UNET_PREFIX + name] for name in names}
    averages = {name: AVERAGE_PREFIX + name.replace(".", "") for name in names}
    if missing := [average for average in averages.values() if average not in weights]:
        raise AssetError(
            f"{path}: it lacks {len(missing)} of {len(names)} averaged tensors, such as {missing[0]}; use a complete "
            "checkpoint, or set `world.assets.weights: raw`."
        )
    return {UNET_PREFIX + name: weights[average] for name, average in averages.items()}


def diffusers_unet_weights(path: Path, unet: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of CompVis' U-Net, without prefix, under diffusers' names.

    Args:
        path: the file, for errors.
        unet: the U-Net to which they belong.
        tensors: the tensors by their names in CompVis.

    Raises `AssetError` if a tensor is left over.
    """
    prefixed = {UNET_PREFIX + name: tensor for name, tensor in tensors.items()}
    return _rename(path, UNET_PREFIX, unet, convert_ldm_unet_checkpoint, prefixed).weights


def _rename(path: Path, prefix: str, network: Any, convert: Any, weights: Mapping[str, Tensor]) -> _Converted:
    """The weights under diffusers' names. Its converter drops unknown tensors, and treats some missing ones as None."""
    with _as_asset_error(path, prefix, network):
        try:
            converted: Mapping[str, Tensor | None] = convert(dict(weights), dict(network.config))
        except (KeyError, ValueError, IndexError, AttributeError) as error:  # for a name that it takes for granted
            raise WeightsMismatch(f"diffusers cannot rename them: {short_message(error)}") from None
    renamed = {name: tensor for name, tensor in converted.items() if tensor is not None}
    expected = network.state_dict()
    if len(renamed) != len(weights) and not expected.keys() - renamed.keys():
        raise AssetError(
            f"{path}: {prefix}* has {len(weights)} tensors, expected the {len(expected)} of {type(network).__name__}."
        )
    return _Converted(prefix, network, renamed)


@contextmanager
def _as_asset_error(path: Path, prefix: str, network: Any) -> Iterator[None]:
    try:
        yield
    except WeightsMismatch as error:
        fault = f"{prefix}* are not the weights of {type(network).__name__}" if network is not None else "not usable"
        raise AssetError(f"{path}: {fault} ({error}).") from None


# Noise schedule


SCHEDULE_TENSOR = "alphas_cumprod"
"""Tensor of a CompVis checkpoint that holds its noise schedule."""

VELOCITY_MARKERS = ("v_pred", "ztsnr")
"""Empty tensors that mark a model as predicting velocity, or as having no signal at the last step."""


def check_checkpoint_schedule(path: Path, weights: Mapping[str, Any], folder: Path, scheduler: Any) -> None:
    """Raise `AssetError` if a CompVis checkpoint was trained with a noise schedule other than the one in use.

    Args:
        path: the checkpoint.
        weights: its tensors.
        folder: folder of the noise schedule in use.
        scheduler: scheduler built from this folder.
    """
    if marks := [name for name in VELOCITY_MARKERS if name in weights]:
        raise AssetError(
            f"{path}: its tensor `{marks[0]}` marks a model that does not predict noise, expected none, as in Stable "
            "Diffusion v1; use the weights of such a model."
        )
    trained, used = weights.get(SCHEDULE_TENSOR), scheduler.alphas_cumprod
    if trained is not None and not (
        trained.shape == used.shape and trained.float().allclose(used, rtol=1e-3, atol=1e-5)
    ):
        raise AssetError(
            f"{path}: its noise schedule `{SCHEDULE_TENSOR}` differs from that of {folder}, expected the same; use the "
            "scheduler of the checkpoint's model."
        )
