"""The parts of a diffusers folder: read, compared with the network that each is for, and loaded.

Each part is a folder with a configuration and weights. diffusers and transformers build the networks and name their
tensors; the files are opened here, because the loaders of both fill in what a file lacks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from corelib.errors import ArtefactError, AssetError, listed, reason_of
from corelib.files.json_files import Record, read_json
from corelib.files.paths import named_below
from corelib.files.pickle_inspection import UnsafeWeights
from corelib.files.torch_files import load_pickled
from corelib.models.state_dicts import (
    COMPILED,
    UnfitWeights,
    check_finite,
    check_fit,
    give_weights,
    named_tensors,
    without_prefix,
    without_weights,
)

# Configurations


ATTENTION = (None, "eager", "sdpa")
"""The implementations of attention that transformers has by itself; other names are packages that it would fetch."""

FLOATING_POINT = (None, "float16", "bfloat16", "float32", "float64", "torch.float16", "torch.bfloat16", "torch.float32")
"""What a configuration may say of the weights' type. It decides nothing: networks are loaded in fp32."""

COMMIT = "0123456789abcdef"


def _is_a_commit(value: object) -> bool:
    return value is None or (isinstance(value, str) and set(value) <= set(COMMIT))


LEADS_TO_CODE: Mapping[str, Callable[[object], bool]] = {
    **dict.fromkeys(
        (
            "_attn_implementation",
            "_attn_implementation_internal",
            "attn_implementation",
            "_experts_implementation",
            "_experts_implementation_internal",
            "experts_implementation",
        ),
        lambda value: value is None or value in ATTENTION,
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
    "_commit_hash": _is_a_commit,
}
"""Keys by which a configuration makes a library run other code or read other files, and the values that do not."""

VOCABULARY = ("vocab.json", "tokenizer.json", "added_tokens.json")
"""JSON files whose keys are words and not settings."""


def read_configuration(path: Path, kind: type, others: tuple[str, ...] = ()) -> dict[str, Any]:
    """The configuration of a part, read as JSON.

    Args:
        path: of the file.
        kind: the class that it configures.
        others: names of classes whose configurations this class reads as well.

    Raises `AssetError` if it is not readable, of another class, or has a key that leads to code.
    """
    content = _settings(path, kind)
    said = content.get("_class_name", content.get("tokenizer_class", kind.__name__))
    architectures = content.get("architectures") or [said]
    named = [said, *(architectures if isinstance(architectures, list) else [architectures])]
    if unknown := [name for name in named if name not in (kind.__name__, *others)]:
        raise AssetError(f"{path}: it configures {str(unknown[0])[:80]!r}, expected {kind.__name__}.")
    return content


def _settings(path: Path, kind: type) -> dict[str, Any]:
    """A JSON object that has, at no depth, a key that leads to code."""
    if not path.exists():
        raise AssetError(f"{path}: the file is missing, expected the configuration of {kind.__name__}.")
    try:
        content = read_json(path)
    except ArtefactError:
        content = None
    if not isinstance(content, dict):
        raise AssetError(f"{path}: not readable as a JSON object, expected the configuration of {kind.__name__}.")
    for key, value in _entries(content):
        allows = LEADS_TO_CODE.get(key)
        if allows is not None and not allows(value):
            raise AssetError(
                f"{path}: `{key}` is {str(value)[:80]!r}, by which other code or files would be loaded; take the key "
                "out of the file."
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
        stem: how the names of its files of weights begin.
        build: makes it from its configuration, with values of its own.
        renamed: brings the names of older versions up to date.
    """

    kind: Any
    stem: str
    build: Callable[[dict[str, Any]], Any]
    renamed: Callable[[Mapping[str, Tensor], Any], dict[str, Tensor]]


NESTED = "text_model."

POSITIONS = "embeddings.position_ids"

OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""The projections of an autoencoder's attention as older versions of diffusers called them."""


def _as_it_is(given: Mapping[str, Tensor], _: Any) -> dict[str, Tensor]:
    return dict(given)


def _text_encoder_renamed(given: Mapping[str, Tensor], network: Any) -> dict[str, Tensor]:
    """transformers 5 leaves out `text_model.`; older versions saved the positions, which the network makes itself."""
    prefix = NESTED if any(name.startswith(NESTED) for name in network.state_dict()) else ""
    bare = {name: tensor for name, tensor in given.items() if name.removeprefix(NESTED) != POSITIONS}
    return {prefix + name: tensor for name, tensor in without_prefix(bare, NESTED).items()}


def _autoencoder_renamed(given: Mapping[str, Tensor], _: Any) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in given.items():
        block, _, leaf = name.rpartition(".")
        place, _, projection = block.rpartition(".")
        if ".attentions." in name and projection in OLD_ATTENTION:
            name = f"{place}.{OLD_ATTENTION[projection]}.{leaf}"
        if name in renamed:
            raise UnfitWeights(f"it has {name} under its old name and under its new one")
        renamed[name] = tensor
    return renamed


def _text_encoder(configuration: dict[str, Any]) -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig.from_dict(configuration))


UNET = Part(UNet2DConditionModel, "diffusion_pytorch_model", UNet2DConditionModel.from_config, _as_it_is)

AUTOENCODER = Part(AutoencoderKL, "diffusion_pytorch_model", AutoencoderKL.from_config, _autoencoder_renamed)

TEXT_ENCODER = Part(CLIPTextModel, "model", _text_encoder, _text_encoder_renamed)

NETWORKS = {"unet": UNET, "unet_ema": UNET, "vae": AUTOENCODER, "text_encoder": TEXT_ENCODER}
"""The parts that have weights, by their folders."""


def build_network(part: Part, folder: Path) -> Any:
    """The network that a folder configures, without weights. Raises `AssetError`."""
    configuration = read_configuration(folder / "config.json", part.kind)
    with _said_of(folder, part.kind):
        return without_weights(lambda: part.build(configuration))


def load_network(part: Part, folder: Path) -> Any:
    """The network in a folder, in fp32, for inference and without gradients.

    Raises `AssetError` if the folder's weights are not all of this network's, or are not finite.
    """
    network = build_network(part, folder)
    with _said_of(folder, part.kind):
        give_weights(network, _weights_for(part, folder, network))
    return network.eval().requires_grad_(False)


def check_network(part: Part, folder: Path, values: bool) -> None:
    """Raise `AssetError` if `load_network` would, without loading the weights.

    Args:
        part: which network.
        folder: where it lies.
        values: whether to read all values and see that they are finite.
    """
    network = build_network(part, folder)
    with _said_of(folder, part.kind):
        given = _weights_for(part, folder, network)
        check_fit(given, network.state_dict())
        if values:
            check_finite(given)


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer in a folder. Raises `AssetError`."""
    read_configuration(folder / "tokenizer_config.json", CLIPTokenizer, ("CLIPTokenizerFast",))
    for path in sorted(folder.glob("*.json")):
        if path.name not in VOCABULARY:
            _settings(path, CLIPTokenizer)
    with _said_of(folder, CLIPTokenizer):
        return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)


def load_scheduler(folder: Path, **switches: Any) -> DDIMScheduler:
    """DDIM over the noise schedule in a folder. Raises `AssetError`."""
    read_configuration(folder / "scheduler_config.json", DDIMScheduler, tuple(DDIMScheduler._compatibles))
    with _said_of(folder, DDIMScheduler):
        return DDIMScheduler.from_pretrained(str(folder), local_files_only=True, **switches)


class _said_of:  # noqa: N801 (used as a function)
    """Turns whatever is raised into one sentence that names the folder; its files decide what that is."""

    def __init__(self, folder: Path, kind: type) -> None:
        self.beginning = f"{folder}: not loadable as {kind.__name__}"

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, UnfitWeights | UnsafeWeights):
            raise AssetError(f"{self.beginning} ({error}).") from None
        if isinstance(error, Exception) and not isinstance(error, AssetError):
            raise AssetError(f"{self.beginning} ({reason_of(error)}).") from None


# Files of weights


def files_of_weights(part: Part, folder: Path) -> tuple[list[Path], dict[str, str] | None]:
    """The files with a part's weights, and of weights that are cut into several which file has which tensor.

    safetensors go before pickles, and files without a variant before those of fp16. Raises `UnfitWeights` if there are
    none, or two of equal rank.
    """
    for variant in ("", ".fp16"):
        for stem, ending in ((part.stem, "safetensors"), (_pickled(part.stem), "bin")):
            whole = folder / f"{stem}{variant}.{ending}"
            index = folder / f"{stem}.{ending}.index{variant}.json"
            if whole.exists() and index.exists():
                raise UnfitWeights(f"{whole.name} and {index.name} are both there, expected one of them")
            if whole.exists():
                return [whole], None
            if index.exists():
                return _shards(folder, index)
    expected = f"{part.stem}.safetensors or {_pickled(part.stem)}.bin, whole or with an index"
    raise UnfitWeights(f"it has no weights, expected {expected}")


def _pickled(stem: str) -> str:
    """transformers calls its pickles otherwise than its safetensors."""
    return "pytorch_model" if stem == "model" else stem


def _shards(folder: Path, index: Path) -> tuple[list[Path], dict[str, str]]:
    places = read_json(index, functools.partial(Record, source=index))["weight_map"]
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise UnfitWeights(f"{index.name} does not say which file has which tensor")
    files = [named_below(folder, name) for name in sorted(set(places.values()))]
    if missing := [path.name for path in files if not path.exists()]:
        raise UnfitWeights(f"{index.name} names files that are missing: {listed(missing)}")
    return files, places


def _weights_for(part: Part, folder: Path, network: Any) -> dict[str, Tensor]:
    """All tensors of a part under the names of today, mapped into memory where their format allows it."""
    files, places = files_of_weights(part, folder)
    found: dict[str, Tensor] = {}
    for path in files:
        tensors = named_tensors(read_tensors(path))
        if places is not None:
            _check_shard(path.name, tensors, places)
        found |= tensors
    return part.renamed(without_prefix(found, COMPILED), network)


def read_tensors(path: Path) -> Any:
    """What a file of weights holds. Raises `UnsafeWeights`, `OSError`, and whatever its reader raises."""
    return load_file(path) if path.suffix == ".safetensors" else load_pickled(path, mapped=True)


def _check_shard(name: str, tensors: Mapping[str, Tensor], places: Mapping[str, str]) -> None:
    promised = {tensor for tensor, place in places.items() if place == name}
    if missing := sorted(promised - tensors.keys()):
        raise UnfitWeights(f"{name} lacks {len(missing)} tensors that its index names: {listed(missing)}")
    if unnamed := sorted(tensors.keys() - promised):
        raise UnfitWeights(f"{name} has {len(unnamed)} tensors that its index does not name: {listed(unnamed)}")
