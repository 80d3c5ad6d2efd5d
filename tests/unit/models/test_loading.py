"""Loading the parts of a pipeline: every form on disk is loaded exactly, or rejected in one sentence."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.small_world import finish, make_pipeline
from torch import Tensor

from corelib.errors import AssetError
from corelib.files.hashing import sha256_of_path
from corelib.models.base_model import BaseModel
from corelib.models.model_inspection import inspect_part
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageResult

Tensors = dict[str, Tensor]
PARTS = ("unet", "vae", "text_encoder")
STEM = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
PICKLED = {**STEM, "text_encoder": "pytorch_model"}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_pipeline(tmp_path_factory.mktemp("pipeline"))


@dataclass(frozen=True)
class Place:
    """A part's folder that has only the configuration, and the tensors to write there."""

    part: str
    folder: Path
    tensors: Tensors

    def write_safetensors(self, tensors: Tensors, variant: str = "") -> None:
        save_file({name: t.contiguous() for name, t in tensors.items()}, self.path("safetensors", variant))

    def write_pickle(self, tensors: Any, **options: Any) -> None:
        torch.save(tensors, self.path("bin"), **options)

    def path(self, ending: str, variant: str = "") -> Path:
        stem = (PICKLED if ending == "bin" else STEM)[self.part]
        return self.folder / f"{stem}{variant}.{ending}"

    def write_shards(self, ending: str = "safetensors", variant: str = "") -> tuple[list[Path], dict[str, str]]:
        """Write two files and their index; return both files, and the file of each tensor."""
        stem = (PICKLED if ending == "bin" else STEM)[self.part]
        names, files = sorted(self.tensors), []
        places: dict[str, str] = {}
        for number, shard in enumerate((names[::2], names[1::2]), start=1):
            path = self.folder / f"{stem}{variant}-{number:05d}-of-00002.{ending}"
            tensors = {name: self.tensors[name].clone() for name in shard}
            save_file(tensors, path) if ending == "safetensors" else torch.save(tensors, path)
            places |= dict.fromkeys(shard, path.name)
            files.append(path)
        self.write_index(places, ending, variant)
        return files, places

    def write_index(self, places: dict[str, str], ending: str = "safetensors", variant: str = "") -> None:
        stem = (PICKLED if ending == "bin" else STEM)[self.part]
        content = {"metadata": {"total_size": 1}, "weight_map": places}
        (self.folder / f"{stem}.{ending}.index{variant}.json").write_text(json.dumps(content))

    def first(self) -> str:
        """The name of a tensor whose first two dimensions differ, so that a transposition is noticed."""
        return next(n for n, t in sorted(self.tensors.items()) if t.ndim >= 2 and t.shape[0] != t.shape[1])

    def alike(self) -> tuple[str, str]:
        """The names of two tensors with equal shapes and different values."""
        return next(
            (one, other)
            for one, other in itertools.combinations(sorted(self.tensors), 2)
            if self.tensors[one].shape == self.tensors[other].shape
            and not torch.equal(self.tensors[one], self.tensors[other])
        )


def _with_changes(place: Place, **changes: Any) -> Tensors:
    return {**place.tensors, **changes}


def _with_dtype(dtype: torch.dtype) -> Callable[[Place], None]:
    return lambda place: place.write_safetensors({name: tensor.to(dtype) for name, tensor in place.tensors.items()})


def _with_first_changed(change: Callable[[Tensor], Tensor]) -> Callable[[Place], None]:
    return lambda place: place.write_safetensors(
        _with_changes(place, **{place.first(): change(place.tensors[place.first()])})
    )


def _without_one(place: Place) -> None:
    place.write_safetensors({name: tensor for name, tensor in place.tensors.items() if name != place.first()})


def _prefixed(prefix: str) -> Callable[[Place], None]:
    return lambda place: place.write_safetensors({prefix + name: tensor for name, tensor in place.tensors.items()})


def _two_formats(place: Place) -> None:
    place.write_safetensors(place.tensors)
    place.write_pickle({name: tensor + 1 for name, tensor in place.tensors.items()})


def _two_variants(place: Place) -> None:
    place.write_safetensors(place.tensors)
    place.write_safetensors({name: tensor.half() + 1 for name, tensor in place.tensors.items()}, ".fp16")


def _shared(place: Place) -> None:
    """Pickle one tensor under two names, as for tied weights."""
    first, second = place.alike()
    place.write_pickle(_with_changes(place, **{second: place.tensors[first]}))


def _missing_shard(place: Place) -> None:
    place.write_shards()[0][1].unlink()


def _index_names_more(place: Place) -> None:
    files, places = place.write_shards()
    place.write_index({**places, "one.more": files[0].name})


def _index_names_less(place: Place) -> None:
    _, places = place.write_shards()
    del places[place.first()]
    place.write_index(places)


def _index_and_whole(place: Place) -> None:
    place.write_shards()
    place.write_safetensors(place.tensors)


def _fp16_shards(place: Place) -> None:
    place.write_shards(variant=".fp16")


def _old_names(place: Place) -> None:
    """Save the network under the names of older versions of diffusers and transformers."""
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors: Tensors = {}
    for name, tensor in place.tensors.items():
        if place.part == "vae" and ".attentions." in name:
            for new, before in old.items():
                name = name.replace(new, before)
        tensors[f"text_model.{name}" if place.part == "text_encoder" else name] = tensor
    if place.part == "text_encoder":
        tensors["text_model.embeddings.position_ids"] = torch.arange(12)[None]
    place.write_pickle(tensors, _use_new_zipfile_serialization=False)


def _without_convolutions_of_the_latents(place: Place) -> None:
    prefix = {"vae": "quant_conv.", "unet": "conv_out.", "text_encoder": "final_layer_norm."}[place.part]
    place.write_safetensors({name: t for name, t in place.tensors.items() if not name.startswith(prefix)})


SAME = "as it is"
MATRIX: dict[str, tuple[Callable[[Place], None], str]] = {
    "safetensors, fp32": (_with_dtype(torch.float32), SAME),
    "safetensors, fp16": (_with_dtype(torch.float16), "rounded to float16"),
    "safetensors, bf16": (_with_dtype(torch.bfloat16), "rounded to bfloat16"),
    "safetensors, fp64": (_with_dtype(torch.float64), SAME),
    "safetensors of the variant fp16, alone": (lambda place: place.write_safetensors(place.tensors, ".fp16"), SAME),
    "safetensors, and others of the variant fp16": (_two_variants, SAME),
    ".bin": (lambda place: place.write_pickle(place.tensors), SAME),
    ".bin, old format": (lambda place: place.write_pickle(place.tensors, _use_new_zipfile_serialization=False), SAME),
    "safetensors, and another .bin": (_two_formats, SAME),
    "safetensors in two files with an index": (lambda place: place.write_shards() and None, SAME),
    ".bin in two files with an index": (lambda place: place.write_shards("bin") and None, SAME),
    "two files of the variant fp16 with an index": (_fp16_shards, SAME),
    "names of older versions": (_old_names, SAME),
    "names behind `_orig_mod.`": (_prefixed("_orig_mod."), SAME),
    ".bin in which two names share one tensor": (_shared, "two alike"),
    "a missing file of two": (_missing_shard, r"names files that are missing: \S+-00002-of-00002\.safetensors\)"),
    "an index that names a tensor too much": (_index_names_more, r"lacks 1 tensors that its index names: one\.more\)"),
    "an index that names a tensor too few": (_index_names_less, r"has 1 tensors that its index does not name: FIRST\)"),
    "one file, and two with an index": (_index_and_whole, r"both \S+ and \S+ exist, expected only one of them\)"),
    "no weights": (lambda place: None, r"it has no weights, expected "),
    "names behind `module.`": (_prefixed("module."), r"it lacks COUNT of COUNT tensors: .*; COUNT of its .*: module\."),
    "one tensor missing": (_without_one, r"it lacks 1 of COUNT tensors: FIRST\)"),
    "a layer missing": (_without_convolutions_of_the_latents, r"it lacks 2 of COUNT tensors: "),
    "one tensor too much": (
        lambda place: place.write_safetensors(_with_changes(place, extra=torch.zeros(1))),
        r"1 of its tensors belong to no part of the network: extra\)",
    ),
    "one tensor transposed": (
        _with_first_changed(lambda t: t.transpose(0, 1)),
        r"1 of its tensors have another shape: FIRST has \(",
    ),
    "one tensor of int8": (
        _with_first_changed(lambda t: t.to(torch.int8)),
        r"1 of its tensors hold another kind of number: FIRST is int8, expected fp16, bf16, fp32 or fp64\)",
    ),
    "all tensors of uint8": (
        _with_dtype(torch.uint8),
        r"COUNT of its tensors hold another kind of number: .* is uint8",
    ),
    "one tensor of fp8": (
        _with_first_changed(lambda t: t.to(torch.float8_e4m3fn)),
        r"FIRST is float8_e4m3fn, expected fp16",
    ),
    "one NaN": (
        _with_first_changed(lambda t: torch.cat([t.reshape(-1)[1:], torch.tensor([float("nan")])]).reshape(t.shape)),
        r"1 of its tensors hold values that are not finite: FIRST\)",
    ),
    "an infinity of fp64": (
        _with_first_changed(lambda t: t.double().clamp(min=1e300)),
        r"1 of its tensors hold values that are not finite: FIRST\)",
    ),
    ".bin with its tensors under `state_dict`": (
        lambda place: place.write_pickle({"state_dict": place.tensors}),
        r"its entry `state_dict` is a state dict, expected tensors; save that entry alone\)",
    ),
    ".bin that is cut off": (lambda place: _cut(place, "bin"), r"\("),
    "safetensors that are cut off": (lambda place: _cut(place, "safetensors"), r"\("),
}
"""Content of the folder, and its outcome: it is loaded exactly, or rejected with this message."""


def _cut(place: Place, ending: str) -> None:
    place.write_pickle(place.tensors) if ending == "bin" else place.write_safetensors(place.tensors)
    content = place.path(ending).read_bytes()
    place.path(ending).write_bytes(content[: len(content) // 2])


def base_model_in(folder: Path) -> BaseModel:
    root = folder / "pipeline"
    parts = {part.name: sha256_of_path(part) for part in root.iterdir() if part.is_dir()}
    facts = {"pipeline": "pipeline", "unet": "unet", "parts": parts}
    return BaseModel(finish(folder, "pipeline", StageResult(["pipeline"], facts)))


def load_part(base: BaseModel, part: str) -> Tensors:
    make: dict[str, Callable[[], Any]] = {
        "unet": base.unet,
        "vae": base.autoencoder,
        "text_encoder": base.text_encoder,
    }
    network = make[part]()
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())
    assert {tensor.device.type for tensor in [*network.parameters(), *network.buffers()]} == {"cpu"}
    return network.state_dict()


def prepare_part(original: Manifest, part: str, folder: Path) -> Place:
    shutil.copytree(original.folder / "pipeline", folder / "pipeline")
    place = folder / "pipeline" / part
    weights = place / f"{STEM[part]}.safetensors"
    tensors = load_file(original.folder / "pipeline" / part / weights.name)
    weights.unlink()
    return Place(part, place, tensors)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("how", MATRIX)
def test_weights_are_loaded_exactly_or_rejected(original: Manifest, part: str, how: str, tmp_path: Path) -> None:
    place = prepare_part(original, part, tmp_path)
    write, outcome = MATRIX[how]
    write(place)
    base = base_model_in(tmp_path)
    if outcome.startswith((SAME, "rounded to ", "two alike")):
        inspect_part(part, place.folder, values=True)
        tensors = load_part(base, part)
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
        assert tensors.keys() == place.tensors.keys()
        for name, tensor in place.tensors.items():
            expected = tensor
            if outcome.startswith("rounded"):
                expected = tensor.to(getattr(torch, outcome.split()[-1])).float()
            if outcome == "two alike" and name == place.alike()[1]:
                expected = place.tensors[place.alike()[0]]
            assert torch.equal(tensors[name], expected), name
        return
    message = outcome.replace("COUNT", str(len(place.tensors))).replace("FIRST", re.escape(place.first()))
    with pytest.raises(AssetError, match=rf"{part}: not loadable as .*{message}"):
        load_part(base, part)
    with pytest.raises(AssetError, match=message):
        inspect_part(part, place.folder, values=True)
    if "not finite" not in outcome:
        with pytest.raises(AssetError, match=message):
            inspect_part(part, place.folder, values=False)
    assert place.folder.exists()


def test_a_text_encoder_gives_the_same_embeddings_each_time(original: Manifest) -> None:
    first, second = (BaseModel(original).text_encoder() for _ in range(2))
    prompt = torch.arange(10)[None]
    assert torch.equal(first(prompt)[0], second(prompt)[0])


# Configurations


KEYS: dict[str, tuple[str, str, Any]] = {
    "attention of a package": ("text_encoder/config.json", "_attn_implementation", "org/kernel:fn"),
    "attention of a package, public name": ("text_encoder/config.json", "attn_implementation", "org/kernel:fn"),
    "attention of a package, inner name": ("text_encoder/config.json", "_attn_implementation_internal", "org/kernel"),
    "attention by part": ("text_encoder/config.json", "_attn_implementation", {"": "org/kernel"}),
    "paged attention": ("text_encoder/config.json", "_attn_implementation", "paged|org/kernel"),
    "flash attention, which transformers fetches": (
        "text_encoder/config.json",
        "_attn_implementation",
        "flash_attention_2",
    ),
    "experts": ("text_encoder/config.json", "_experts_implementation", "org/kernel"),
    "kernels": ("text_encoder/config.json", "use_kernels", True),
    "code of the repository": ("text_encoder/config.json", "auto_map", {"AutoModel": "modeling.CLIP"}),
    "code of the repository, nested": ("text_encoder/config.json", "text_config", {"auto_map": {"AutoModel": "x.Y"}}),
    "trust": ("unet/config.json", "trust_remote_code", True),
    "a pipeline of its own": ("unet/config.json", "custom_pipeline", "org/pipeline"),
    "quantization": ("unet/config.json", "quantization_config", {"quant_method": "bitsandbytes"}),
    "quantization of a text encoder": ("text_encoder/config.json", "quantization_config", {"quant_method": "gptq"}),
    "a type that is none": ("text_encoder/config.json", "dtype", "load"),
    "a type of 8 bits": ("text_encoder/config.json", "torch_dtype", "float8_e4m3fn"),
    "a commit that is none": ("text_encoder/config.json", "_commit_hash", "../../main"),
    "code of an autoencoder": ("vae/config.json", "auto_map", {"AutoModel": "x.Y"}),
    "code of a tokenizer": ("tokenizer/tokenizer_config.json", "auto_map", {"AutoTokenizer": ["x.Y", None]}),
    "a vocabulary elsewhere": ("tokenizer/tokenizer_config.json", "vocab_file", "/etc/passwd"),
    "code of a scheduler": ("scheduler/scheduler_config.json", "auto_map", {"AutoScheduler": "x.Y"}),
}


def load_all_parts(base: BaseModel) -> None:
    for load in (base.unet, base.autoencoder, base.text_encoder, base.tokenizer, base.scheduler):
        load()


@pytest.mark.parametrize(("file", "key", "value"), KEYS.values(), ids=KEYS)
def test_a_key_that_leads_to_code_is_rejected_by_name(
    original: Manifest, file: str, key: str, value: Any, tmp_path: Path
) -> None:
    shutil.copytree(original.folder / "pipeline", tmp_path / "pipeline")
    path = tmp_path / "pipeline" / file
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    inner = "auto_map" if key == "text_config" else key
    message = rf"{file}: `{inner}` is .*, which would load other code or files; remove the key from the file\."
    with pytest.raises(AssetError, match=message):
        load_all_parts(base_model_in(tmp_path))
    with pytest.raises(AssetError, match=message):
        inspect_part(file.split("/")[0], path.parent, values=False)


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("unet/config.json", "_class_name", "UNet3DConditionModel"),
        ("unet/config.json", "_class_name", "org.module.UNet"),
        ("vae/config.json", "_class_name", "AutoencoderTiny"),
        ("text_encoder/config.json", "architectures", ["CLIPTextModelWithProjection"]),
        ("text_encoder/config.json", "architectures", ["EvilModel"]),
        ("tokenizer/tokenizer_config.json", "tokenizer_class", "EvilTokenizer"),
        ("scheduler/scheduler_config.json", "_class_name", "EvilScheduler"),
    ],
)
def test_a_configuration_of_another_class_is_rejected(
    original: Manifest, file: str, key: str, value: Any, tmp_path: Path
) -> None:
    shutil.copytree(original.folder / "pipeline", tmp_path / "pipeline")
    path = tmp_path / "pipeline" / file
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    name = value[0] if isinstance(value, list) else value
    with pytest.raises(AssetError, match=rf"{file}: it configures '{re.escape(name)}', expected "):
        load_all_parts(base_model_in(tmp_path))


@pytest.mark.parametrize("content", ["", "[]", "{", "nul", None], ids=["empty", "a list", "cut", "no JSON", "missing"])
@pytest.mark.parametrize(
    "file",
    [
        "unet/config.json",
        "vae/config.json",
        "text_encoder/config.json",
        "tokenizer/tokenizer_config.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_an_invalid_configuration_is_reported_in_one_sentence(
    original: Manifest, file: str, content: str | None, tmp_path: Path
) -> None:
    shutil.copytree(original.folder / "pipeline", tmp_path / "pipeline")
    path = tmp_path / "pipeline" / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(AssetError, match=rf"{file}: (the file is missing|not readable as a JSON object), expected"):
        load_all_parts(base_model_in(tmp_path))


def test_harmless_keys_of_published_folders_are_accepted(original: Manifest, tmp_path: Path) -> None:
    """Keys of the published folders of Stable Diffusion v1.5 and of its fine-tuned models."""
    shutil.copytree(original.folder / "pipeline", tmp_path / "pipeline")
    added: dict[str, dict[str, Any]] = {
        "unet/config.json": {"_diffusers_version": "0.6.0", "decay": 0.9999, "optimization_step": 19999},
        "vae/config.json": {"_name_or_path": "/somewhere/vae", "_commit_hash": None},
        "text_encoder/config.json": {
            "torch_dtype": "float16",
            "architectures": ["CLIPTextModel"],
            "_commit_hash": "4bb648a606ef040e7685bde262611766a5fdd67b",
        },
        "tokenizer/tokenizer_config.json": {
            "special_tokens_map_file": "./special_tokens_map.json",
            "name_or_path": "openai/clip-vit-large-patch14",
        },
        "scheduler/scheduler_config.json": {"_class_name": "PNDMScheduler", "skip_prk_steps": True},
    }
    for file, keys in added.items():
        path = tmp_path / "pipeline" / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))
    base = base_model_in(tmp_path)
    load_all_parts(base)
    assert {tensor.dtype for tensor in base.text_encoder().parameters()} == {torch.float32}
