"""Latents of generated training images, which the base model samples from the prompts of the anchors."""

from __future__ import annotations

from PIL import Image

from corelib.data.latents import cache_latents
from corelib.data.slices import Pair
from corelib.files.hashing import sha256_of_path
from corelib.files.image_files import read_image
from corelib.runs.stage_context import StageContext, StageResult
from corelib.sampling.collection import image_paths
from corelib.settings.data import LatentsStage


def cache_generated_latents(settings: LatentsStage, context: StageContext) -> StageResult:
    """Stage: cache the latent moments of sampled images, as `encode_images` does for real ones; indices are seeds."""
    paths = image_paths(context.inputs["samples"])

    def read(pair: Pair) -> Image.Image:
        return read_image(paths[pair.style, pair.object, pair.index])

    def sha256(pair: Pair) -> str:
        return sha256_of_path(paths[pair.style, pair.object, pair.index])

    return cache_latents(settings, context, read, sha256)
