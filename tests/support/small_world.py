"""A world of random images and random weights, complete enough for all later stages; created in a second."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from support.hand_made import write_manifest
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from corelib.data.embeddings import embed_prompts
from corelib.data.latents import encode_images
from corelib.data.slices import slice_images
from corelib.files.hashing import sha256_of_path
from corelib.models.pipeline_folder import save_pipeline
from corelib.runs.layout import MANIFEST
from corelib.runs.manifest import Manifest, read_manifest
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.data import EmbeddingsStage, Encoding, LatentsStage, SliceStage
from corelib.settings.kernels import Kernels
from corelib.settings.miniature import TextEncoder
from corelib.settings.objective import Objective
from corelib.settings.precision import TrainingPrecision
from corelib.settings.prompts import Prompts
from corelib.settings.sampling import DDIMSampling, Decoding, SamplesStage, Sampling
from corelib.settings.unlearning import Adam, Length, UnlearningStage
from corelib.worlds.miniature.pipeline import build_text_encoder, build_tokenizer

STYLES = ["Amber", "Blue", "Cream", "Seed_Images"]
OBJECTS = ["Cats", "Dogs"]
PIXELS = 16
PLAIN = Kernels(compile=None, channels_last=False)
FP32 = TrainingPrecision(gpu="fp32", cpu="fp32")
PROMPTS = Prompts(
    template="A {object} image in {style} style.",
    photo_style="Seed_Images",
    photo_in_training="Photo",
    photo_in_evaluation="Seed Images",
    names={},
    evaluation=None,
)
IN_TRAINING, IN_EVALUATION = PROMPTS.in_training, PROMPTS.in_evaluation


def finish(folder: Path, stage: str, outcome: StageResult) -> Manifest:
    """Write the manifest of a stage, as its job does."""
    write_manifest(folder / MANIFEST, folder, stage, stage, outcome.files, outcome.facts)
    return read_manifest(folder / MANIFEST)


def make_images(folder: Path, styles: list[str] = STYLES, per_cell: int = 3) -> Manifest:
    """Random JPEGs in UnlearnCanvas' layout."""
    rng = np.random.default_rng(0)
    for style in styles:
        for object_ in OBJECTS:
            cell = folder / "images" / style / object_
            cell.mkdir(parents=True)
            for index in range(1, per_cell + 1):
                coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
                Image.fromarray(coarse).resize((PIXELS, PIXELS)).save(cell / f"{index}.jpg", quality=95)
    return finish(folder, "images", StageResult(["images"], {"images": "images"}))


def make_pipeline(folder: Path, seed: int = 0) -> Manifest:
    """A base model of random weights: 16 pixels, latents of 4 x 8 x 8, two levels with cross-attention."""
    torch.manual_seed(seed)
    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
    )
    tokenizer = build_tokenizer(["A", "image", "in", "style.", "Photo", "Seed", "Images", *STYLES, *OBJECTS])
    encoder = build_text_encoder(TextEncoder(width=16, layers=1, heads=2), tokenizer)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    root = folder / "pipeline"
    save_pipeline(
        root,
        autoencoder,
        encoder,
        tokenizer,
        unet,
        DDIMScheduler(beta_schedule="scaled_linear", steps_offset=1, clip_sample=False),
    )
    parts = {part.name: sha256_of_path(part) for part in root.iterdir() if part.is_dir()}
    facts = {"pipeline": "pipeline", "unet": "unet", "parts": parts}
    return finish(folder, "pipeline", StageResult(["pipeline"], facts))


def with_another_scheduler(pipeline: Manifest, folder: Path) -> Manifest:
    """The same base model with Stable Diffusion's scheduler file, which lacks options that DDIM needs."""
    shutil.copytree(pipeline.folder, folder)
    path = folder / "pipeline/scheduler/scheduler_config.json"
    schedule = {key: value for key, value in json.loads(path.read_text()).items() if key.startswith("beta_")}
    path.write_text(json.dumps({"_class_name": "PNDMScheduler", "skip_prk_steps": True, **schedule}))
    parts = {**pipeline.facts["parts"], "scheduler": sha256_of_path(path.parent)}
    return finish(folder, "pipeline", StageResult(["pipeline"], {**pipeline.facts, "parts": parts}))


def make_clip(folder: Path, texts: Iterable[str], pixels: int = 32) -> Path:
    """A CLIP model of random weights that knows the words of some texts, in a folder as transformers saves it."""
    torch.manual_seed(2)
    tokenizer = build_tokenizer(texts)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    words = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 77,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    sight = {"image_size": pixels, "patch_size": pixels // 4}
    config = CLIPConfig(text_config=tower | words, vision_config=tower | sight, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))
    size = {"size": {"shortest_edge": pixels}, "crop_size": {"height": pixels, "width": pixels}}
    CLIPImageProcessor(**size).save_pretrained(folder)
    return folder


def make_classifier(folder: Path, label: str, classes: list[str]) -> Manifest:
    """A classifier of random weights."""
    torch.manual_seed(1)
    model = timm.create_model("test_resnet", num_classes=len(classes))
    folder.mkdir(parents=True)
    torch.save({"model_state_dict": model.state_dict()}, folder / "classifier.pth")
    network = {
        "weights": "classifier.pth",
        "sha256": sha256_of_path(folder / "classifier.pth"),
        "architecture": "test_resnet",
        "classes": classes,
        "resolution": PIXELS,
    }
    return finish(folder, "classifier", StageResult(["classifier.pth"], {"classifiers": {label: network}}))


def make_small_world(folder: Path) -> dict[str, Manifest]:
    """A world with everything that unlearning needs: images, pipeline, slice, latents and embeddings."""
    images, pipeline = make_images(folder / "images"), make_pipeline(folder / "pipeline")
    slice_settings = SliceStage(forget=["Amber"], retain=["Blue", "Cream"], objects=OBJECTS, images=[1, 2, 3])
    latents_settings = LatentsStage(
        styles=STYLES,
        objects=OBJECTS,
        images=[1, 2, 3],
        encoding=Encoding(resolution=PIXELS, interpolation="bicubic", batch=4),
    )
    concepts = [(style, object_) for style in STYLES for object_ in OBJECTS]
    prompts = {wording.prompt(*concept) for wording in (IN_TRAINING, IN_EVALUATION) for concept in concepts}
    embeddings_settings = EmbeddingsStage(prompts=sorted({"", *prompts}))
    stages: Mapping[str, Any] = {
        "slice": (slice_images, slice_settings),
        "latents": (encode_images, latents_settings),
        "embeddings": (embed_prompts, embeddings_settings),
    }
    found = {"images": images, "pipeline": pipeline}
    for name, (stage, settings) in stages.items():
        work = StageContext(folder=folder / name, digest=name, inputs=found)
        work.folder.mkdir()
        found[name] = finish(work.folder, name, stage(settings, work))
    return found


def unlearning_settings(objective: Objective, **changes: Any) -> UnlearningStage:
    """Settings of a short run that forgets Amber."""
    leaves: dict[str, Any] = {
        "objective": objective,
        "trained": "cross_attention",
        "candidates": {"Amber": ["Blue", "Cream"]},
        "draw": "pair",
        "learning_rate": 1e-3,
        "batch": 2,
        "length": Length(steps=6),
        "min_steps": 1,
        "batch_counts": "forget",
        "reduction": "mean",
        "optimizer": Adam(betas=[0.9, 0.999], epsilon=1e-8, weight_decay=0.0),
        "wording": IN_TRAINING,
        "precision": FP32,
        "kernels": PLAIN,
        "seed": 0,
    }
    return UnlearningStage(**(leaves | changes))


def samples_settings(grid: list[tuple[str, str, int]], batch: int = 2) -> SamplesStage:
    """Settings of a few DDIM steps for a small grid."""
    scheduler = DDIMSampling(
        steps=3, eta=0.0, steps_offset=1, set_alpha_to_one=False, clip_sample=False, timestep_spacing="leading"
    )
    sampling = Sampling(
        scheduler=scheduler,
        guidance_scale=3.0,
        negative_prompt="",
        resolution=PIXELS,
        batch=batch,
        jpeg_quality=75,
        precision=FP32,
        kernels=PLAIN,
        decoding=Decoding(batch=batch, precision=FP32),
    )
    return SamplesStage(sampling=sampling, wording=IN_EVALUATION, grid=grid)
