"""Features of image files for FID.

There are three extractors, each with its own image handling: clean-fid's loader with its Inception network; the same
loader with the miniature's own two classifiers; and the benchmark's evaluator, which uses torchvision's Inception,
resizes twice as OpenCV does, and normalises twice.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from cleanfid.fid import get_files_features
from PIL import Image
from torch import Tensor

from corelib.errors import AssetError, short_message
from corelib.evaluation.opencv_resize import resize_float32, resize_uint8
from corelib.files.image_files import is_portable, read_image
from corelib.models.classifier import ImageClassifier
from corelib.models.device import Device
from corelib.models.inception import (
    INCEPTION_FEATURES,
    load_clean_fid_inception,
    load_torchvision_inception,
    mixture_features,
)
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext
from corelib.settings.evaluation import FID
from corelib.settings.precision import Precision

BENCHMARK_SIDE, INCEPTION_SIDE = 512, 299


def extract_features(paths: list[Path], fid: FID, context: StageContext) -> Tensor:
    """Features of image files, (images, d) in fp64.

    Raises `AssetError` if the extractor cannot be loaded, or if the features of an image are not finite.
    """
    device = Device(Precision(gpu="fp32", cpu="fp32"), context.threads)
    extract = _extract_as_benchmark if fid.mode == "benchmark" else _extract_with_clean_fid
    features = extract(paths, fid, context, device)
    if "inception" in context.inputs and features.shape[1] != INCEPTION_FEATURES:
        raise AssetError(
            f"{context.inputs['inception'].folder}: its Inception network returns {features.shape[1]} features per "
            f"image, expected {INCEPTION_FEATURES}; check the file of the network."
        )
    if not torch.isfinite(features).all():
        first = int(torch.isfinite(features).all(dim=1).int().argmin())
        raise AssetError(f"{paths[first]}: its features are not finite; check the weights of their network.")
    return features.double()


# clean-fid


def _extract_with_clean_fid(paths: list[Path], fid: FID, context: StageContext, device: Device) -> Tensor:
    """Features of images that clean-fid loads, (images, d).

    In the paper's world, these are Inception features of images resized to 299 pixels. In the miniature, they are the
    concatenated features of its own two classifiers, and images are not resized.
    """
    if "inception" in context.inputs:
        extractor, resize = _load_clean_inception(context.inputs["inception"], fid, device), None
    else:
        extractor, resize = _load_classifiers(context, device), _keep_size
    try:
        # In the mode legacy_tensorflow the network resizes, not clean-fid, so the images of a batch need one size.
        with _files_for_clean_fid(paths) as files:
            groups = _group_by_size(files) if fid.mode == "legacy_tensorflow" else [files]
            features = [
                get_files_features(
                    [str(path) for path in group],
                    model=extractor,
                    num_workers=0,
                    batch_size=fid.batch,
                    device=device.torch_device,
                    mode=fid.mode,
                    custom_fn_resize=resize,
                    verbose=False,
                )
                for group in groups
            ]
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a damaged header
        raise AssetError(f"{paths[0].parent}: an image is damaged ({short_message(error)}); replace it.") from None
    return torch.from_numpy(np.concatenate(features))


@contextmanager
def _files_for_clean_fid(paths: list[Path]) -> Iterator[list[Path]]:
    """Yield files in which clean-fid reads the same pixels as `read_image`.

    clean-fid opens any format and ignores the orientation in EXIF. Images that it would read differently are copied.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, path in enumerate(paths):
            file = path
            if not is_portable(path):
                file = Path(folder, f"{number}.png")
                read_image(path).save(file)
            files.append(file)
        yield files


def _group_by_size(paths: list[Path]) -> list[list[Path]]:
    """The images in order, in groups of consecutive images of one size; their headers have been checked."""

    def size(path: Path) -> tuple[int, int]:
        with Image.open(path) as image:
            return image.size

    return [list(group) for _, group in itertools.groupby(paths, size)]


def _load_clean_inception(assets: Manifest, fid: FID, device: Device) -> Callable[[Tensor], Tensor]:
    path = _verified_weights(assets, "inception")
    return load_clean_fid_inception(path, resize_inside=fid.mode == "legacy_tensorflow").to(device.torch_device)


def _load_classifiers(context: StageContext, device: Device) -> Callable[[Tensor], Tensor]:
    classifiers = [
        ImageClassifier.of_run(context.inputs[f"{label}_classifier"], label, device) for label in ("style", "object")
    ]

    def extract(pixels: Tensor) -> Tensor:
        return torch.cat([classifier.features(pixels) for classifier in classifiers], dim=1)

    return extract


def _keep_size(image: object) -> object:
    return image


# The benchmark's evaluator


@torch.no_grad()
def _extract_as_benchmark(paths: list[Path], fid: FID, context: StageContext, device: Device) -> Tensor:
    network = load_torchvision_inception(_verified_weights(context.inputs["inception"], "inception_torchvision"))
    network = network.to(device.torch_device)
    parts = []
    for start in range(0, len(paths), fid.batch):
        pixels = torch.stack([benchmark_resize(read_image(path)) for path in paths[start : start + fid.batch]])
        parts.append(mixture_features(network, pixels.to(device.torch_device)).cpu())
    return torch.cat(parts)


def benchmark_resize(image: Image.Image) -> Tensor:
    """Resize to 512 pixels in 8 bits, then to 299 in floating point, both as OpenCV does; (3, 299, 299) in [0, 1]."""
    levels = resize_uint8(np.asarray(image), BENCHMARK_SIDE)
    pixels = resize_float32(levels.astype(np.float32) / np.float32(255), INCEPTION_SIDE)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _verified_weights(assets: Manifest, name: str) -> Path:
    facts = assets.facts[name]
    return assets.verified_external(facts["weights"], facts["sha256"])
