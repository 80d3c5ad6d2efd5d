"""A base model of Stable Diffusion v2's form: other text encoder, padding token and projections than v1."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from support.small_world import finish
from transformers import CLIPTextConfig, CLIPTextModel

from corelib.data.embeddings import EmbeddingCache, embed_prompts
from corelib.files.hashing import sha256_of_path
from corelib.library import apply_delta, unlearn
from corelib.models.base_model import BaseModel
from corelib.models.model_inspection import inspect_part, part_mismatches
from corelib.models.pipeline_folder import save_pipeline
from corelib.models.trained_parameters import trained_parameters
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.data import EmbeddingsStage
from corelib.worlds.miniature.pipeline import build_tokenizer

PROMPTS = ["", "a photo of a cat", "a cat in the snow"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("v2")
    tokenizer = build_tokenizer(PROMPTS)
    tokenizer.pad_token = "!"
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            hidden_act="gelu",
            projection_dim=32,
            max_position_embeddings=tokenizer.model_max_length,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=[2, 4],
        use_linear_projection=True,
        norm_num_groups=4,
    )
    autoencoder = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    schedule = DDIMScheduler(beta_schedule="scaled_linear", steps_offset=1, clip_sample=False)
    save_pipeline(folder / "pipeline", autoencoder, encoder, tokenizer, unet, schedule)
    parts = {part.name: sha256_of_path(part) for part in (folder / "pipeline").iterdir() if part.is_dir()}
    facts = {"pipeline": "pipeline", "unet": "unet", "parts": parts}
    return finish(folder, "pipeline", StageResult(["pipeline"], facts))


def test_its_parts_are_accepted(pipeline: Manifest) -> None:
    root = pipeline.folder / "pipeline"
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        inspect_part(part, root / part, values=True)
    assert not list(part_mismatches(root / "unet", root / "vae", root / "text_encoder", root / "tokenizer"))


def test_its_embeddings_are_those_of_diffusers(pipeline: Manifest, tmp_path: Path) -> None:
    context = StageContext(folder=tmp_path, digest="x", inputs={"pipeline": pipeline})
    outcome = embed_prompts(EmbeddingsStage(prompts=PROMPTS), context)
    cache = EmbeddingCache.of_run(finish(tmp_path, "embeddings", outcome))
    plain = StableDiffusionPipeline.from_pretrained(
        pipeline.folder / "pipeline", safety_checker=None, requires_safety_checker=False
    )
    for prompt in PROMPTS:
        expected, _ = plain.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)
        torch.testing.assert_close(cache.of([prompt]), expected, rtol=1e-5, atol=1e-6)


def test_its_cross_attention_is_found(pipeline: Manifest) -> None:
    names = list(trained_parameters(BaseModel(pipeline).unet(), "cross_attention"))
    assert names and all(".attn2." in name for name in names)


def test_it_unlearns_in_memory(pipeline: Manifest, tmp_path: Path) -> None:
    plain = StableDiffusionPipeline.from_pretrained(
        pipeline.folder / "pipeline", safety_checker=None, requires_safety_checker=False
    )
    images = [Image.new("RGB", (16, 16), color) for color in ("red", "green", "blue")]
    model = unlearn(plain, images[:2], PROMPTS[1], "", images[2:], PROMPTS[2], method="core", steps=2)
    names = list(trained_parameters(plain.unet, "cross_attention"))
    assert sorted(model.delta.tensors) == sorted(names)
    apply_delta(plain, model.delta)
    weights = plain.unet.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.delta.tensors.items())
