"""The paper's assets with random content, in the published form: the same file names, keys and pickles.

At `REDUCED` width, the assets have a few megabytes, for tests of the whole workflow. At `FULL` width, they have the
real architectures with 860 million parameters and 512 pixels, for measurements of time and memory.
"""

from __future__ import annotations

import io
import itertools
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import timm
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from tokenizers import pre_tokenizers
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

UNUSED_STYLES = (
    "Blue_Blooming", "Crypto_Punks", "Dreamweave", "Foliage_Patchwork", "Impasto",
    "Palette_Knife", "Pointillism", "Rainwash", "Realistic_Watercolor", "Techno",
)  # fmt: skip
VOCABULARY = 49408
"""Number of tokens of CLIP: 256 bytes, 256 bytes that end a word, 48,894 merges, and the start and end of a text."""


@dataclass(frozen=True)
class Width:
    """Widths of the networks of Stable Diffusion v1.5, and the architecture of the classifiers.

    The U-Net and the autoencoder have the original levels and layers at every width.
    """

    unet: tuple[int, int, int, int]
    autoencoder: tuple[int, int, int, int]
    text: int
    text_layers: int
    heads: int
    classifier: str


FULL = Width((320, 640, 1280, 1280), (128, 256, 512, 512), 768, 12, 12, "vit_large_patch16_224.augreg_in21k")
REDUCED = Width((32, 64, 96, 96), (32, 64, 96, 96), 32, 2, 2, "vit_tiny_patch16_224.augreg_in21k")


# The networks of `stable-diffusion-v1-5`, configured as in its folders `unet`, `vae` and `text_encoder`


def build_unet(width: Width) -> UNet2DConditionModel:
    """The U-Net: 860 M parameters in 686 tensors at full width."""
    return UNet2DConditionModel(
        sample_size=64,
        block_out_channels=width.unet,
        cross_attention_dim=width.text,
        attention_head_dim=8,
        down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        layers_per_block=2,
    )


def build_autoencoder(width: Width) -> AutoencoderKL:
    """The autoencoder: 84 M parameters in 248 tensors at full width."""
    return AutoencoderKL(
        block_out_channels=width.autoencoder,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
        scaling_factor=0.18215,
    )


def build_text_encoder(width: Width) -> CLIPTextModel:
    """The text encoder: 123 M parameters in 196 tensors at full width."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=width.text,
            intermediate_size=4 * width.text,
            projection_dim=width.text,
            num_hidden_layers=width.text_layers,
            num_attention_heads=width.heads,
            max_position_embeddings=77,
            hidden_act="quick_gelu",
            bos_token_id=0,
            eos_token_id=2,
            pad_token_id=1,
        )
    )


# CompVis' names, from the structure of its networks (openaimodel.py and model.py of CompVis/latent-diffusion)


def compvis_unet_name(name: str) -> str:
    """The name in a CompVis checkpoint of a tensor of diffusers' U-Net."""
    first, *rest = name.split(".")
    match [first, *rest]:
        case ["conv_in", leaf]:
            return f"input_blocks.0.0.{leaf}"
        case ["time_embedding", layer, leaf]:
            return f"time_embed.{0 if layer == 'linear_1' else 2}.{leaf}"
        case ["conv_norm_out", leaf]:
            return f"out.0.{leaf}"
        case ["conv_out", leaf]:
            return f"out.2.{leaf}"
        case ["down_blocks", level, "downsamplers", "0", "conv", leaf]:
            return f"input_blocks.{3 * int(level) + 3}.0.op.{leaf}"
        case ["down_blocks", level, kind, layer, *below]:
            return f"input_blocks.{3 * int(level) + int(layer) + 1}.{_inside(kind, below)}"
        case ["mid_block", kind, layer, *below]:
            place = {"resnets0": 0, "attentions0": 1, "resnets1": 2}[kind + layer]
            return f"middle_block.{place}.{_inside(kind, below).split('.', 1)[1]}"
        case ["up_blocks", level, "upsamplers", "0", "conv", leaf]:
            return f"output_blocks.{3 * int(level) + 2}.{1 if level == '0' else 2}.conv.{leaf}"
        case ["up_blocks", level, kind, layer, *below]:
            return f"output_blocks.{3 * int(level) + int(layer)}.{_inside(kind, below)}"
    raise ValueError(name)


RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def _inside(kind: str, below: Sequence[str]) -> str:
    if kind == "attentions":
        return ".".join(["1", *below])
    return ".".join(["0", RESIDUAL[below[0]], *below[1:]])


def compvis_autoencoder_name(name: str) -> str:
    """The name in a CompVis checkpoint of a tensor of diffusers' autoencoder."""
    for theirs, ours in (
        ("conv_norm_out", "norm_out"),
        ("conv_shortcut", "nin_shortcut"),
        ("mid_block.resnets.0", "mid.block_1"),
        ("mid_block.resnets.1", "mid.block_2"),
        ("mid_block.attentions.0.group_norm", "mid.attn_1.norm"),
        ("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out"),
        ("mid_block.attentions.0.to_", "mid.attn_1."),
        ("downsamplers.0", "downsample"),
        ("upsamplers.0", "upsample"),
        (".resnets.", ".block."),
    ):
        name = name.replace(theirs, ours)
    side, kind, *rest = name.split(".")
    if kind == "down_blocks":
        return ".".join([side, "down", *rest])
    if kind == "up_blocks":  # counted from the finest level
        return ".".join([side, "up", str(3 - int(rest[0])), *rest[1:]])
    return name


def compvis_state_dict(
    unet: UNet2DConditionModel, average: UNet2DConditionModel, autoencoder: AutoencoderKL, text_encoder: CLIPTextModel
) -> dict[str, Tensor]:
    """`state_dict` of a Lightning checkpoint of latent diffusion: noise schedule, U-Net, its average, VAE and CLIP."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0)
    before = torch.cat([kept.new_ones(1), kept[:-1]])
    variance = betas * (1 - before) / (1 - kept)
    schedule = {
        "betas": betas,
        "alphas_cumprod": kept,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": kept.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - kept).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - kept).log(),
        "sqrt_recip_alphas_cumprod": (1 / kept).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / kept - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * before.sqrt() / (1 - kept),
        "posterior_mean_coef2": (1 - before) * (1 - betas).sqrt() / (1 - kept),
    }
    found = OrderedDict((name, values.float()) for name, values in schedule.items())
    for name, tensor in unet.state_dict().items():
        found[f"model.diffusion_model.{compvis_unet_name(name)}"] = tensor
    found["model_ema.decay"] = torch.tensor(0.9999)
    found["model_ema.num_updates"] = torch.tensor(6999, dtype=torch.int32)
    for name, tensor in average.state_dict().items():
        found["model_ema.diffusion_model" + compvis_unet_name(name).replace(".", "")] = tensor
    for name, tensor in autoencoder.state_dict().items():
        is_attention = "attentions" in name and tensor.ndim == 2  # 1 x 1 convolutions there
        found[f"first_stage_model.{compvis_autoencoder_name(name)}"] = (
            tensor[:, :, None, None] if is_attention else tensor
        )
    clip = "cond_stage_model.transformer.text_model."
    found[clip + "embeddings.position_ids"] = torch.arange(77)[None]
    for name, tensor in text_encoder.state_dict().items():
        found[clip + name.removeprefix("text_model.")] = tensor
    return found


# The files


def write_assets(folder: Path, width: Width, styles: Sequence[str], objects: Sequence[str]) -> None:
    """Write all assets except the images, at the paths in `folder` that `config/config.yaml` expects."""
    torch.manual_seed(0)
    checkpoints = folder / "UnlearnCanvas-ckpts"
    with torch.no_grad():
        unet, autoencoder, text_encoder = build_unet(width), build_autoencoder(width), build_text_encoder(width)
        write_diffusers_folder(checkpoints / "diffusion/diffuser/style50", unet, autoencoder, text_encoder)
        compvis = checkpoints / "diffusion/compvis/compvis.ckpt"
        compvis.parent.mkdir(parents=True)
        average = build_unet(width)
        write_lightning(compvis, compvis_state_dict(unet, average, autoencoder, text_encoder))
        for name, classes in (("style50", styles), ("style50_cls", objects)):
            write_classifier(checkpoints / f"cls_model/{name}.pth", width.classifier, len(classes))
    write_inception(folder / "inception-2015-12-05.pt")


def write_diffusers_folder(
    folder: Path, unet: UNet2DConditionModel, autoencoder: AutoencoderKL, text_encoder: CLIPTextModel
) -> None:
    """Write a pipeline as diffusers' `train_text_to_image.py` did in 2023, with the averaged weights in `unet_ema`."""
    unet.save_pretrained(folder / "unet")
    average = UNet2DConditionModel.from_config(unet.config)
    average.load_state_dict({name: tensor * 0.99 for name, tensor in unet.state_dict().items()})
    average.save_pretrained(folder / "unet_ema")
    _amend(folder / "unet_ema/config.json", decay=0.9999, optimization_step=19999, power=2 / 3, update_after_step=0)
    autoencoder.save_pretrained(folder / "vae")
    write_old_text_encoder(folder / "text_encoder", text_encoder)
    write_tokenizer(folder / "tokenizer")
    _write_json(
        folder / "scheduler/scheduler_config.json",
        {
            "_class_name": "PNDMScheduler",
            "_diffusers_version": "0.6.0",
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "num_train_timesteps": 1000,
            "set_alpha_to_one": False,
            "skip_prk_steps": True,
            "steps_offset": 1,
            "trained_betas": None,
            "clip_sample": False,
        },
    )
    _write_json(
        folder / "model_index.json",
        {
            "_class_name": "StableDiffusionPipeline",
            "_diffusers_version": "0.6.0",
            "feature_extractor": ["transformers", "CLIPFeatureExtractor"],
            "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
            "scheduler": ["diffusers", "PNDMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )


def write_old_text_encoder(folder: Path, text_encoder: CLIPTextModel) -> None:
    """Write a text encoder as transformers 4.21 did: pickled, under `text_model`, with the position IDs."""
    folder.mkdir(parents=True)
    weights = {f"text_model.{name.removeprefix('text_model.')}": t for name, t in text_encoder.state_dict().items()}
    weights["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    torch.save(weights, folder / "pytorch_model.bin")
    _write_json(folder / "config.json", text_encoder.config.to_dict())
    _amend(folder / "config.json", architectures=["CLIPTextModel"], transformers_version="4.21.0.dev0")


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer with CLIP's files and sizes. Its tokens are letters, and pairs that do not occur in prompts."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ends = [letter + "</w>" for letter in letters]
    rare = [letter for letter in letters if not letter.isascii()]
    pairs = [*((first, second) for first in rare for second in letters + ends), *itertools.product(letters, rare)]
    merges = list(dict.fromkeys(pairs))[: VOCABULARY - 2 - 2 * len(letters)]
    tokens = [*letters, *ends, *(first + second for first, second in merges), "<|startoftext|>", "<|endoftext|>"]
    assert len(tokens) == len(set(tokens)) == VOCABULARY
    _write_json(folder / "vocab.json", {token: place for place, token in enumerate(tokens)})
    lines = ["#version: 0.2", *(f"{first} {second}" for first, second in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    marks = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    _write_json(folder / "special_tokens_map.json", {**marks, "pad_token": "<|endoftext|>"})
    _write_json(
        folder / "tokenizer_config.json",
        {
            **marks,
            "add_prefix_space": False,
            "do_lower_case": True,
            "errors": "replace",
            "model_max_length": 77,
            "name_or_path": "openai/clip-vit-large-patch14",
            "pad_token": "<|endoftext|>",
            "tokenizer_class": "CLIPTokenizer",
        },
    )


def write_lightning(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a checkpoint as Lightning 1.4 did. Its pickle contains classes of callbacks that are not installed here."""
    callback = type("ModelCheckpoint", (), {"__module__": "pytorch_lightning.callbacks.model_checkpoint"})
    content = {
        "epoch": 4,
        "global_step": 6999,
        "pytorch-lightning_version": "1.4.2",
        "state_dict": weights,
        "callbacks": {callback: {"monitor": None, "best_model_score": None, "dirpath": "checkpoints"}},
    }
    with _importable(callback):
        torch.save(content, path)


class _importable:  # noqa: N801 (used as a function)
    """A context in which pickle can import a class from the module that the class names."""

    def __init__(self, found: type) -> None:
        self.found = found

    def __enter__(self) -> None:
        import sys
        import types

        parts = self.found.__module__.split(".")
        self.names = [".".join(parts[: count + 1]) for count in range(len(parts))]
        for name in self.names:
            sys.modules[name] = types.ModuleType(name)
        setattr(sys.modules[self.names[-1]], self.found.__name__, self.found)
        self.found.__qualname__ = self.found.__name__

    def __exit__(self, *_: object) -> None:
        import sys

        for name in self.names:
            del sys.modules[name]


def write_classifier(path: Path, architecture: str, classes: int) -> None:
    """Write a checkpoint in the benchmark's form. The classifier predicts many different classes for our pictures."""
    model = timm.create_model(architecture, pretrained=False, num_classes=classes).eval()
    rng = np.random.default_rng(7)
    pictures = np.stack([np.asarray(Image.open(io.BytesIO(picture(rng, 224)))) for _ in range(32)])
    with torch.no_grad():
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
        features = model.forward_head(model.forward_features(pixels), pre_logits=True)
        centred = features - features.mean(dim=0)
        directions = torch.linalg.svd(centred, full_matrices=False).Vh[:16]
        model.head.weight.copy_(torch.randn(classes, len(directions)) @ directions)
        model.head.bias.copy_(-model.head.weight @ features.mean(dim=0))
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model_state_dict": model.state_dict()}, path)


class _Layers(torch.nn.Module):
    """Replacement for the layers of Inception: the means of 4 x 4 patches, mixed into features in (-1, 1).

    There are 2,048 features as in Inception, but only the first 40 differ from zero. The covariance of 40 features of a
    hundred images is regular, so SciPy's matrix root is as accurate as ours.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.nn.Linear(3 * 4 * 4, 40)

    def forward(self, x: Tensor) -> Tensor:
        features = self.mix(torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)).tanh()
        return torch.nn.functional.pad(features, [0, 2008])


class _Inception(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = _Layers()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def write_inception(path: Path) -> None:
    """Write a TorchScript file with those parts of clean-fid's Inception that are called."""
    torch.manual_seed(3)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.jit.script(_Inception().eval()).save(path)


# Images


def picture(rng: np.random.Generator, side: int, grain: int = 4) -> bytes:
    """A JPEG of coarse random colours. With a fine grain, its file is as large as those of the benchmark."""
    coarse = Image.fromarray(rng.integers(0, 256, (grain, grain, 3), dtype=np.uint8)).resize((side, side))
    stream = io.BytesIO()
    coarse.save(stream, format="JPEG", quality=95, subsampling=0)
    return stream.getvalue()


def with_comment(jpeg: bytes, text: str) -> bytes:
    """The same picture in a different file, which has a comment after its first marker."""
    content = text.encode()
    return jpeg[:2] + b"\xff\xfe" + (len(content) + 2).to_bytes(2, "big") + content + jpeg[2:]


def benchmark_images(
    styles: Sequence[str], objects: Sequence[str], per_cell: int, large: Sequence[tuple[str, str]] = (), side: int = 24
) -> Iterator[tuple[str, str, int, bytes]]:
    """Style, object, index and bytes of every image. No two are equal; those of `large` cells have three megabytes."""
    rng = np.random.default_rng(5)
    for style in styles:
        for object_ in objects:
            is_large = (style, object_) in large
            base = picture(rng, 2048 if is_large else side, 900 if is_large else 4)
            for index in range(1, per_cell + 1):
                yield style, object_, index, with_comment(base, f"{style} {object_} {index}")


def write_image_folder(folder: Path, images: Iterator[tuple[str, str, int, bytes]]) -> None:
    """Write the images as STYLE/OBJECT/INDEX.jpg."""
    for style, object_, index, content in images:
        cell = folder / style / object_
        cell.mkdir(parents=True, exist_ok=True)
        (cell / f"{index}.jpg").write_bytes(content)


def write_parquet(folder: Path, images: Iterator[tuple[str, str, int, bytes]], rows_per_shard: int = 2500) -> int:
    """Write the images as on the Hub, as shards with an image and a caption in each row; return the number of rows."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"image": {"bytes": content, "path": None}, "text": f"A {object_} image in {words_of(style)} style."}
        for style, object_, _, content in images
    ]
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("text", pa.string())],
        metadata={"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})},
    )
    shards = [rows[start : start + rows_per_shard] for start in range(0, len(rows), rows_per_shard)]
    for number, shard in enumerate(shards):
        table = pa.Table.from_pylist(shard, schema=schema)
        pq.write_table(table, folder / f"train-{number:05d}-of-{len(shards):05d}.parquet", row_group_size=100)
    return len(rows)


def words_of(style: str) -> str:
    """The words for a style in a caption."""
    return "Photo" if style == "Seed_Images" else style.replace("_", " ")


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def _amend(path: Path, **changes: Any) -> None:
    _write_json(path, {**json.loads(path.read_text()), **changes})
