"""Generated training images: what the base model shows when it is asked for the anchors, as latents."""

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
    """Stage: the latent moments of sampled images, whose seeds are their indices; as `latents` has real ones."""
    paths = sampled_images(work.inputs["samples"])

    def read(pair: Pair) -> Image.Image:
        return read_image(paths[pair.style, pair.object, pair.index])

    def sha256(pair: Pair) -> str:
        return sha256_of(paths[pair.style, pair.object, pair.index])

    return encode(settings, work, read, sha256)
