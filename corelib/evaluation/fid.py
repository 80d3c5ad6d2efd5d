"""Frechet distance between the features of sampled and of real images.

The distance is computed from the nuclear norm of the cross-product of the two centred feature matrices. This is faster
than a matrix square root, and correct also with fewer images than features.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from corelib.data.slices import product_pairs
from corelib.errors import ArtefactError, AssetError
from corelib.evaluation.features import extract_features
from corelib.files.atomic import atomic_write
from corelib.files.torch_files import read_safetensors
from corelib.runs.stage_context import StageContext, StageResult
from corelib.sampling.collection import image_paths
from corelib.settings.evaluation import FIDStage, ReferenceStage
from corelib.worlds.benchmark_images import benchmark_images

FEATURES = "features.safetensors"


def summarize_reference(settings: ReferenceStage, context: StageContext) -> StageResult:
    """Stage: compute the features of the real images of the retain cells, (images, d)."""
    images = benchmark_images(context.inputs["images"])
    pairs = product_pairs(settings.styles, settings.objects, settings.fid.reference_images)
    with tempfile.TemporaryDirectory(dir=context.folder, prefix=".images.") as extracted:
        files = images.files([(pair.style, pair.object, pair.index) for pair in pairs], Path(extracted))
        images.check()
        features = extract_features(files, settings.fid, context)
    with atomic_write(context.folder / FEATURES) as temporary:
        save_file({"features": features.contiguous()}, temporary)
    return StageResult([FEATURES], {"images": len(pairs), "dimensions": features.shape[1]})


def measure_fid(settings: FIDStage, context: StageContext) -> StageResult:
    """Stage: measure the distance of the sampled images in `settings.grid` to the reference."""
    paths = image_paths(context.inputs["samples"])
    files = [paths[image] for image in settings.grid]
    features = extract_features(files, settings.fid, context)
    reference = read_features(context.inputs["reference"].file(FEATURES), features.shape[1])
    return StageResult([], {"fid": frechet_distance(features, reference), "images": len(files)})


def read_features(path: Path, dimensions: int) -> Tensor:
    """Read features that `summarize_reference` wrote. Raises `ArtefactError` if they are damaged or do not fit."""
    features = read_safetensors(path, ["features"])["features"]
    if features.ndim != 2 or features.shape[1] != dimensions or features.dtype != torch.float64:
        raise ArtefactError(
            f"{path}: features of shape {tuple(features.shape)}, expected (images, {dimensions}) in fp64."
        )
    return features


def frechet_distance(sampled: Tensor, real: Tensor) -> float:
    """||mu_1 - mu_2||^2 + tr(S_1) + tr(S_2) - 2 tr((S_1 S_2)^(1/2)) of two feature sets, without a unit.

    With A and B the centred features over sqrt(n - 1), S_1 = A'A and S_2 = B'B, the last trace is the nuclear norm of
    A B'. (Heusel et al. 2017, GANs Trained by a Two Time-Scale Update Rule, arXiv:1706.08500.)

    Args:
        sampled: features of the sampled images, (n, d) in fp64.
        real: features of the real images, (m, d) in fp64.

    Raises `AssetError` for fewer than two images, for features of another shape or type, and if one is not finite.
    """
    for features in (sampled, real):
        if features.ndim != 2 or features.shape[1] != real.shape[-1] or features.dtype != torch.float64:
            shapes = " and ".join(f"{tuple(each.shape)} in {each.dtype}" for each in (sampled, real))
            raise AssetError(
                f"FID of features of shape {shapes}, expected (images, d) in torch.float64 for both; convert them with "
                "`.double()`."
            )
        if not features.isfinite().all():
            raise AssetError("FID of features that are not finite; check the images and the network of the features.")
    if min(len(sampled), len(real)) < 2:
        raise AssetError(f"FID of {len(sampled)} sampled and {len(real)} real images, expected at least two of each.")
    means = sampled.mean(dim=0), real.mean(dim=0)
    first, second = (_centre(features, mean) for features, mean in zip((sampled, real), means, strict=True))
    trace_of_root = torch.linalg.svdvals(_reduce(first) @ _reduce(second).T).sum()
    distance = (means[0] - means[1]).square().sum() + first.square().sum() + second.square().sum() - 2 * trace_of_root
    return max(0.0, float(distance))


def _centre(features: Tensor, mean: Tensor) -> Tensor:
    return (features - mean) / (len(features) - 1) ** 0.5


def _reduce(features: Tensor) -> Tensor:
    """A matrix with the same F'F and at most d rows; products with it have the same nuclear norm."""
    return torch.linalg.qr(features, mode="r").R if len(features) > features.shape[1] else features
