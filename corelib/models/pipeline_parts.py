"""Parts of a diffusers folder: reading them, comparing them with their networks, and loading them.

Each part is a folder with a configuration and weights. diffusers and transformers build the networks and name their
tensors. Their loaders fill in values that a file lacks, so the files are read by `corelib.models.weight_files`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from corelib.errors import ArtefactError, AssetError, short_message
from corelib.files.json_files import read_json
from corelib.files.pickle_inspection import UnsafeWeights
from corelib.models.state_dicts import COMPILED_PREFIX, build_empty, copy_weights, strip_prefix
from corelib.models.weight_checks import WeightsMismatch, check_finite, check_fit
from corelib.models.weight_files import read_weight_files

# Configurations


ATTENTION_IMPLEMENTATIONS = (None, "eager", "sdpa")
"""Attention implementations that transformers includes; for any other name it would fetch a package."""

FLOATING_POINT = (None, "float16", "bfloat16", "float32", "float64", "torch.float16", "torch.bfloat16", "torch.float32")
"""Types of weights that a configuration may name. They have no effect: networks are loaded in fp32."""

HEX_DIGITS = "0123456789abcdef"


def _is_commit(value: object) -> bool:
    return value is None or (isinstance(value, str) and set(value) <= set(HEX_DIGITS))


CODE_LOADING_KEYS: Mapping[str, Callable[[object], bool]] = {
    **dict.fromkeys(
        (
            "_attn_implementation",
            "_attn_implementation_internal",
            "attn_implementation",
            "_experts_implementation",
            "_experts_implementation_internal",
            "experts_implementation",
        ),
        lambda value: value is None or value in ATTENTION_IMPLEMENTATIONS,
    ),
    **dict.fromkeys(("dtype", "torch_dtype"), lambda value: value in FLOATING_POINT),
    **dict.fromkeys(("trust_remote_code", "use_kernels"), lambda value: value in (None, False)),
    **dict.fromkeys(
        (
            "auto_map",
            "custom_pipeline",
            "custom_pipelines",
            "gguf_file",
            "kernel_config",
            "merges_file",
            "quantization_config",
            "tokenizer_file",
            "vocab_file",
        ),
        lambda value: value is None,
    ),
    "_commit_hash": _is_commit,
}
"""Keys that can make a library run other code or read other files, each with a predicate for its harmless values."""

VOCABULARY_FILES = ("vocab.json", "tokenizer.json", "added_tokens.json")
"""JSON files whose keys are words, not settings."""


def read_configuration(path: Path, kind: type, others: tuple[str, ...] = ()) -> dict[str, Any]:
    """The configuration of a part, read as JSON.

    Args:
        path: the configuration file.
        kind: class that it configures.
        others: names of other classes whose configurations this class can read.

    Raises `AssetError` if the file is not readable, configures another class, or has a key that leads to code.
    """
    content = _read_settings(path, kind)
    class_name = content.get("_class_name", content.get("tokenizer_class", kind.__name__))
    architectures = content.get("architectures") or [class_name]
    names = [class_name, *(architectures if isinstance(architectures, list) else [architectures])]
    if unknown := [name for name in names if name not in (kind.__name__, *others)]:
        raise AssetError(f"{path}: it configures {str(unknown[0])[:80]!r}, expected {kind.__name__}.")
    return content


def _read_settings(path: Path, kind: type) -> dict[str, Any]:
    """Read a JSON object and check that no key, at any depth, leads to code."""
    if not path.exists():
        raise AssetError(f"{path}: the file is missing, expected the configuration of {kind.__name__}.")
    try:
        content = read_json(path)
    except ArtefactError:
        content = None
    if not isinstance(content, dict):
        raise AssetError(f"{path}: not readable as a JSON object, expected the configuration of {kind.__name__}.")
    for key, value in _entries(content):
        allows = CODE_LOADING_KEYS.get(key)
        if allows is not None and not allows(value):
            raise AssetError(
                f"{path}: `{key}` is {str(value)[:80]!r}, which would load other code or files; remove the key from "
                "the file."
            )
    return content


def _entries(content: object) -> Iterator[tuple[str, object]]:
    if isinstance(content, dict):
        yield from content.items()
    for value in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        yield from _entries(value)


# Networks


@dataclass(frozen=True)
class Part:
    """A network of a pipeline.

    Attributes:
        kind: its class.
        stem: start of the names of its weight files.
        build: builds it, with initial values, from its configuration.
        renamed: translates the tensor names of older versions to the current ones.
    """

    kind: Any
    stem: str
    build: Callable[[dict[str, Any]], Any]
    renamed: Callable[[Mapping[str, Tensor], Any], dict[str, Tensor]]


TEXT_MODEL_PREFIX = "text_model."

POSITION_IDS = "embeddings.position_ids"

OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of the projections of an autoencoder's attention in older versions of diffusers, and the current names."""


def _keep_names(tensors: Mapping[str, Tensor], _: Any) -> dict[str, Tensor]:
    return dict(tensors)


def rename_clip(tensors: Mapping[str, Tensor], _: Any) -> dict[str, Tensor]:
    """The tensors of a whole CLIP model without the position ids that older versions saved."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(POSITION_IDS)}


def _rename_text_encoder(tensors: Mapping[str, Tensor], network: Any) -> dict[str, Tensor]:
    """transformers 5 omits the prefix `text_model.`; older versions saved position ids, which the network computes."""
    prefix = TEXT_MODEL_PREFIX if any(name.startswith(TEXT_MODEL_PREFIX) for name in network.state_dict()) else ""
    bare = {name: tensor for name, tensor in tensors.items() if name.removeprefix(TEXT_MODEL_PREFIX) != POSITION_IDS}
    return {prefix + name: tensor for name, tensor in strip_prefix(bare, TEXT_MODEL_PREFIX).items()}


def _rename_autoencoder(tensors: Mapping[str, Tensor], _: Any) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        block, _, leaf = name.rpartition(".")
        parent, _, projection = block.rpartition(".")
        if ".attentions." in name and projection in OLD_ATTENTION:
            name = f"{parent}.{OLD_ATTENTION[projection]}.{leaf}"
        if name in renamed:
            raise WeightsMismatch(f"it has {name} under both its old and its new name")
        renamed[name] = tensor
    return renamed


def _build_text_encoder(configuration: dict[str, Any]) -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig.from_dict(configuration))


UNET = Part(UNet2DConditionModel, "diffusion_pytorch_model", UNet2DConditionModel.from_config, _keep_names)

AUTOENCODER = Part(AutoencoderKL, "diffusion_pytorch_model", AutoencoderKL.from_config, _rename_autoencoder)

TEXT_ENCODER = Part(CLIPTextModel, "model", _build_text_encoder, _rename_text_encoder)

NETWORKS = {"unet": UNET, "unet_ema": UNET, "vae": AUTOENCODER, "text_encoder": TEXT_ENCODER}
"""Parts that have weights, by folder name."""


def build_network(part: Part, folder: Path) -> Any:
    """The network that a folder configures, without weights. Raises `AssetError`."""
    configuration = read_configuration(folder / "config.json", part.kind)
    with _as_asset_error(folder, part.kind):
        return build_empty(lambda: part.build(configuration))


def load_network(part: Part, folder: Path) -> Any:
    """The network in a folder, in fp32, for inference and without gradients.

    Raises `AssetError` if the folder's weights are not exactly those of this network, or are not finite.
    """
    network = build_network(part, folder)
    with _as_asset_error(folder, part.kind):
        copy_weights(network, _read_weights(part, folder, network))
    return network.eval().requires_grad_(False)


def read_part(part: Part, folder: Path) -> tuple[Any, dict[str, Tensor]]:
    """The network that a folder configures, without weights, and its tensors by name. Raises `AssetError`."""
    network = build_network(part, folder)
    with _as_asset_error(folder, part.kind):
        return network, _read_weights(part, folder, network)


def check_network(part: Part, folder: Path, values: bool) -> None:
    """Raise `AssetError` if `load_network` would, without loading the weights.

    Args:
        part: the network.
        folder: its folder.
        values: whether to read all values and check that they are finite.
    """
    network = build_network(part, folder)
    with _as_asset_error(folder, part.kind):
        tensors = _read_weights(part, folder, network)
        check_fit(tensors, network.state_dict())
        if values:
            check_finite(tensors)


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer in a folder. Raises `AssetError`."""
    read_configuration(folder / "tokenizer_config.json", CLIPTokenizer, ("CLIPTokenizerFast",))
    for path in sorted(folder.glob("*.json")):
        if path.name not in VOCABULARY_FILES:
            _read_settings(path, CLIPTokenizer)
    with _as_asset_error(folder, CLIPTokenizer):
        return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)


def load_scheduler(folder: Path, **overrides: Any) -> DDIMScheduler:
    """DDIM over the noise schedule in a folder. Raises `AssetError`."""
    read_configuration(folder / "scheduler_config.json", DDIMScheduler, tuple(DDIMScheduler._compatibles))
    with _as_asset_error(folder, DDIMScheduler):
        return DDIMScheduler.from_pretrained(str(folder), local_files_only=True, **overrides)


class _as_asset_error:  # noqa: N801 (used as a function)
    """Turn any exception into an `AssetError` that names the folder; which one is raised depends on the files."""

    def __init__(self, folder: Path, kind: type) -> None:
        self.beginning = f"{folder}: not loadable as {kind.__name__}"

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, WeightsMismatch | UnsafeWeights):
            raise AssetError(f"{self.beginning} ({error}).") from None
        if isinstance(error, Exception) and not isinstance(error, AssetError):
            raise AssetError(f"{self.beginning} ({short_message(error)}).") from None


def _read_weights(part: Part, folder: Path, network: Any) -> dict[str, Tensor]:
    """All tensors of a part under their current names."""
    return part.renamed(strip_prefix(read_weight_files(part.stem, folder), COMPILED_PREFIX), network)
