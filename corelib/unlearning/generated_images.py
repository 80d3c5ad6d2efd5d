"""Latents of generated training images, which the base model samples from the prompts of the anchors."""

from __future__ import annotations

from PIL import Image

from corelib.data.latents import encode
from corelib.data.slices import Pair
from corelib.files.hashing import sha256_of
from corelib.files.image_files import read_image
from corelib.runs.stage import Outcome, Work
from corelib.sampling.collection import sampled_images
from corelib.settings.data import LatentsStage


def encode_generated(settings: LatentsStage, work: Work) -> Outcome:
    """Stage: cache the latent moments of sampled images, as `encode_images` does for real ones; indices are seeds."""
    paths = sampled_images(work.inputs["samples"])

    def read(pair: Pair) -> Image.Image:
        return read_image(paths[pair.style, pair.object, pair.index])

    def sha256(pair: Pair) -> str:
        return sha256_of(paths[pair.style, pair.object, pair.index])

    return encode(settings, work, read, sha256)
