"""Generated training images: what the base model shows when it is asked for the anchors, as latents."""

from __future__ import annotations

from PIL import Image

from corelib.artefacts import sha256_of
from corelib.gathering import sampled_images
from corelib.latents import encode
from corelib.settings.slicing import LatentsStage
from corelib.slices import Pair
from corelib.work import Outcome, Work
from corelib.worlds.images import read_image


def encode_generated(settings: LatentsStage, work: Work) -> Outcome:
    """Stage: the latent moments of sampled images, whose seeds are their indices; as `latents` has real ones."""
    paths = sampled_images(work.inputs["samples"])

    def read(pair: Pair) -> Image.Image:
        return read_image(paths[pair.style, pair.object, pair.index])

    def sha256(pair: Pair) -> str:
        return sha256_of(paths[pair.style, pair.object, pair.index])

    return encode(settings, work, read, sha256)
