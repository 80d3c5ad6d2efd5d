"""Cached latents: the moments of the autoencoder's posterior for every training image.

Sampling z from cached moments at each step has the same distribution as encoding the image at each step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from corelib.data.slices import Pair, Slice, product_pairs
from corelib.errors import ArtefactError, AssetError
from corelib.files.atomic import atomic_write
from corelib.files.json_files import read_json, write_json
from corelib.files.torch_files import read_safetensors
from corelib.models.base_model import BaseModel
from corelib.models.device import Device
from corelib.runs.layout import MANIFEST
from corelib.runs.manifest import Manifest
from corelib.runs.progress import Progress
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.data import Encoding, LatentsStage
from corelib.settings.precision import Precision
from corelib.worlds.benchmark_images import benchmark_images

MOMENTS, IMAGE_HASHES = "moments.safetensors", "images.json"


def encode_images(settings: LatentsStage, context: StageContext) -> StageResult:
    """Stage: cache the mean and standard deviation of the latent of every style x object x image, (n, c, h, w) each."""
    images = benchmark_images(context.inputs["images"])

    def read(pair: Pair) -> Image.Image:
        return images.read(pair.style, pair.object, pair.index)

    def sha256(pair: Pair) -> str:
        return images.sha256(pair.style, pair.object, pair.index)

    outcome = cache_latents(settings, context, read, sha256)
    images.check()
    return outcome


def cache_latents(
    settings: LatentsStage, context: StageContext, read: Callable[[Pair], Image.Image], sha256: Callable[[Pair], str]
) -> StageResult:
    """Cache the moments of every style x object x image, with images from any source.

    Args:
        settings: the images and their preprocessing.
        work: the stage's work, with the base model among its inputs.
        read: returns an image.
        sha256: returns the hash of an image's file.

    Raises `AssetError` if a latent is not finite.
    """
    device = Device(Precision(gpu="fp32", cpu="fp32"), context.threads)
    autoencoder = BaseModel(context.inputs["pipeline"]).autoencoder().to(device.torch_device)
    pairs = product_pairs(settings.styles, settings.objects, settings.images)
    moments = encode_pairs(autoencoder, pairs, read, settings.encoding, device.torch_device)
    write_json(context.folder / IMAGE_HASHES, [sha256(pair) for pair in pairs])
    with atomic_write(context.folder / MOMENTS) as temporary:
        save_file({"mean": moments.mean, "deviation": moments.deviation}, temporary)
    return StageResult(
        [MOMENTS, IMAGE_HASHES],
        {
            "styles": settings.styles,
            "objects": settings.objects,
            "images": settings.images,
            "scaling_factor": autoencoder.config["scaling_factor"],
        },
    )


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of the autoencoder's posterior of some images, (n, c, h, w) each, on the CPU.

    Both are contiguous, as they are when read from a file: the rounding of a convolution depends on the layout.
    """

    mean: Tensor
    deviation: Tensor


def encode_pairs(
    autoencoder: AutoencoderKL,
    pairs: Sequence[Pair],
    read: Callable[[Pair], Image.Image],
    encoding: Encoding,
    device: torch.device,
) -> Moments:
    """The moments of the latents of images.

    Args:
        autoencoder: the encoder, in fp32 and on `device`.
        pairs: the images, in batches of `encoding.batch`.
        read: returns an image in RGB.
        encoding: preprocessing and size of batches.
        device: device on which to compute.

    Raises `AssetError` if a latent is not finite.
    """
    progress = Progress("images", len(pairs))
    means, deviations = [], []
    for start in range(0, len(pairs), encoding.batch):
        batch = pairs[start : start + encoding.batch]
        pixels = torch.stack([preprocess(read(pair), encoding) for pair in batch])
        with torch.no_grad():
            posterior = autoencoder.encode(pixels.to(device)).latent_dist
        means.append(posterior.mean.cpu())
        deviations.append(posterior.std.cpu())
        _check_finite(means[-1], deviations[-1], batch)
        progress.report(start + len(batch))
    return Moments(torch.cat(means).contiguous(), torch.cat(deviations).contiguous())


def _check_finite(means: Tensor, deviations: Tensor, pairs: Sequence[Pair]) -> None:
    """Raise `AssetError` if the moments of an image are not finite."""
    if not (is_finite := (means + deviations).isfinite().flatten(1).all(dim=1)).all():
        first = pairs[int(is_finite.int().argmin())]
        raise AssetError(
            f"{first.style}/{first.object}/{first.index}.jpg: its latent is not finite; check the autoencoder."
        )


def preprocess(image: Image.Image, encoding: Encoding) -> Tensor:
    """Preprocess an image for the autoencoder: crop the central square, resize; (3, side, side) in [-1, 1]."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    if side != encoding.resolution:
        resampling = Image.Resampling[encoding.interpolation.upper()]
        square = square.resize((encoding.resolution, encoding.resolution), resampling)
    return torch.from_numpy(np.asarray(square, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1.0


class LatentCache:
    """Latents of training images, drawn from their cached moments.

    Args:
        pairs: the images.
        moments: their moments, in the order of `pairs`.
        scaling_factor: factor of the base model's latents.
        sha256: sha256 of the images' files, in the order of `pairs`.
        source: origin of the moments, for messages.

    Raises `ArtefactError` for an image that was not encoded.
    """

    def __init__(
        self, pairs: Sequence[Pair], moments: Moments, scaling_factor: float, sha256: Sequence[str], source: str
    ) -> None:
        self.mean, self.deviation = moments.mean, moments.deviation  # (n, c, h, w)
        self.scaling_factor = scaling_factor
        self._sha256 = sha256
        self._source = source
        self._rows = {pair: row for row, pair in enumerate(pairs)}

    @classmethod
    def of_run(cls, manifest: Manifest) -> LatentCache:
        """The latents that `encode_images` cached. Raises `ArtefactError` if the cache is damaged."""
        path, facts = manifest.file(MOMENTS), manifest.facts
        tensors = read_safetensors(path, ["mean", "deviation"])
        moments = Moments(tensors["mean"], tensors["deviation"])
        sha256 = read_json(manifest.file(IMAGE_HASHES))
        try:
            scaling_factor = float(facts["scaling_factor"])
            pairs = product_pairs(facts["styles"], facts["objects"], facts["images"])
        except (TypeError, ValueError):
            raise ArtefactError(f"{manifest.folder / MANIFEST}: its facts do not list the encoded images.") from None
        shapes = {tuple(tensor.shape) for tensor in (moments.mean, moments.deviation)}
        if len(shapes) > 1 or moments.mean.ndim != 4 or not len(moments.mean) == len(pairs) == len(sha256):
            raise ArtefactError(f"{path}: moments of shape {min(shapes)}, expected ({len(pairs)}, c, h, w) for both.")
        return cls(pairs, moments, scaling_factor, sha256, str(manifest.folder))

    def check(self, slice_: Slice) -> None:
        """Raise `ArtefactError` if the file of an image in `slice_` changed between slicing and encoding."""
        for pair, sha256 in slice_.sha256.items():
            if self._sha256[self._row(pair)] != sha256:
                raise ArtefactError(
                    f"{self._source}: {pair.style}/{pair.object}/{pair.index}.jpg changed between slicing and "
                    f"encoding; delete {self._source} and the slice, and ask for the target again."
                )

    def _row(self, pair: Pair) -> int:
        if pair not in self._rows:
            image = f"{pair.style}/{pair.object}/{pair.index}"
            raise ArtefactError(f"{self._source}: it has no latent of the image {image}.")
        return self._rows[pair]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one latent, (c, h, w)."""
        return tuple(self.mean.shape[1:])

    def draw(self, pairs: list[Pair], posterior_noise: Tensor) -> Tensor:
        """Draw latents z = scaling_factor (mean + deviation * posterior_noise), (len(pairs), c, h, w)."""
        rows = torch.tensor([self._row(pair) for pair in pairs])
        return self.scaling_factor * (self.mean[rows] + self.deviation[rows] * posterior_noise)
