"""Features of image files, between whose distributions FID measures: three extractors, each with its image handling.

clean-fid's loader with its Inception network, or with the miniature's own two classifiers; and the benchmark's
evaluator, which has torchvision's Inception, resizes twice as OpenCV does it and normalises twice.
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

from corelib.errors import AssetError, reason_of
from corelib.evaluation.opencv_resize import resized_bytes, resized_floats
from corelib.files.image_files import is_read_alike_by_all, read_image
from corelib.models.classifier import ImageClassifier
from corelib.models.device import Device
from corelib.models.inception import INCEPTION_FEATURES, clean_inception, mixture_features, torchvision_inception
from corelib.runs.manifest import Manifest
from corelib.runs.stage import Work
from corelib.settings.evaluation import FID
from corelib.settings.precision import Precision

BENCHMARK_SIDE, INCEPTION_SIDE = 512, 299


def features_of(paths: list[Path], fid: FID, work: Work) -> Tensor:
    """Features of image files, (images, d) in fp64.

    Raises `AssetError` if the extractor is not loadable, or the features of an image are not finite.
    """
    device = Device(Precision(gpu="fp32", cpu="fp32"), work.threads)
    extract = _by_the_benchmark if fid.mode == "benchmark" else _by_clean_fid
    features = extract(paths, fid, work, device)
    if "inception" in work.inputs and features.shape[1] != INCEPTION_FEATURES:
        raise AssetError(
            f"{work.inputs['inception'].folder}: its Inception network answers with {features.shape[1]} features of an "
            f"image, expected {INCEPTION_FEATURES}."
        )
    if not torch.isfinite(features).all():
        first = int(torch.isfinite(features).all(dim=1).int().argmin())
        raise AssetError(f"{paths[first]}: its features are not finite.")
    return features.double()


# clean-fid


def _by_clean_fid(paths: list[Path], fid: FID, work: Work, device: Device) -> Tensor:
    """The paper's world has Inception features of images resized to 299 pixels; the miniature those of its own two
    classifiers, side by side, of images as they are.
    """
    if "inception" in work.inputs:
        extractor, resize = _inception(work.inputs["inception"], fid, device), None
    else:
        extractor, resize = _own_features(work, device), _as_it_is
    try:
        # Legacy TensorFlow's network resizes by itself, and clean-fid does not: what is of one size makes a batch.
        with _in_files_for_clean_fid(paths) as files:
            runs = _runs_of_one_size(files) if fid.mode == "legacy_tensorflow" else [files]
            features = [
                get_files_features(
                    [str(path) for path in run],
                    model=extractor,
                    num_workers=0,
                    batch_size=fid.batch,
                    device=device.torch_device,
                    mode=fid.mode,
                    custom_fn_resize=resize,
                    verbose=False,
                )
                for run in runs
            ]
    except (OSError, SyntaxError) as error:  # of an image whose header is one
        raise AssetError(f"{paths[0].parent}: an image is damaged ({reason_of(error)}), expected whole ones.") from None
    return torch.from_numpy(np.concatenate(features))


@contextmanager
def _in_files_for_clean_fid(paths: list[Path]) -> Iterator[list[Path]]:
    """The images as files for a library that opens whatever it is given, and knows nothing of how a camera was held.

    Those that it would read otherwise than `read_image` are copied.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, path in enumerate(paths):
            file = path
            if not is_read_alike_by_all(path):
                file = Path(folder, f"{number}.png")
                read_image(path).save(file)
            files.append(file)
        yield files


def _runs_of_one_size(paths: list[Path]) -> list[list[Path]]:
    """The images in their order, cut where the next one has another size; their headers have been looked at."""

    def size(path: Path) -> tuple[int, int]:
        with Image.open(path) as image:
            return image.size

    return [list(run) for _, run in itertools.groupby(paths, size)]


def _inception(world: Manifest, fid: FID, device: Device) -> Callable[[Tensor], Tensor]:
    path = _vouched_for(world, "inception")
    return clean_inception(path, resize_inside=fid.mode == "legacy_tensorflow").to(device.torch_device)


def _own_features(work: Work, device: Device) -> Callable[[Tensor], Tensor]:
    classifiers = [ImageClassifier(work.inputs[f"{label}_classifier"], label, device) for label in ("style", "object")]

    def extract(pixels: Tensor) -> Tensor:
        return torch.cat([classifier.features(pixels) for classifier in classifiers], dim=1)

    return extract


def _as_it_is(image: object) -> object:
    return image


# The benchmark's evaluator


@torch.no_grad()
def _by_the_benchmark(paths: list[Path], fid: FID, work: Work, device: Device) -> Tensor:
    network = torchvision_inception(_vouched_for(work.inputs["inception"], "inception_torchvision"))
    network = network.to(device.torch_device)
    parts = []
    for start in range(0, len(paths), fid.batch):
        pixels = torch.stack([as_the_benchmark_resizes(read_image(path)) for path in paths[start : start + fid.batch]])
        parts.append(mixture_features(network, pixels.to(device.torch_device)).cpu())
    return torch.cat(parts)


def as_the_benchmark_resizes(image: Image.Image) -> Tensor:
    """To 512 pixels in whole levels, then to 299, both as OpenCV does it; (3, 299, 299) in [0, 1]."""
    levels = resized_bytes(np.asarray(image), BENCHMARK_SIDE)
    pixels = resized_floats(levels.astype(np.float32) / np.float32(255), INCEPTION_SIDE)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _vouched_for(world: Manifest, name: str) -> Path:
    facts = world.facts[name]
    return world.outside(facts["weights"], facts["sha256"])
