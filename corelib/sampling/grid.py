"""The grid of images that a run samples: file names, batches and shards."""

from __future__ import annotations

import math
from pathlib import Path

from corelib.runs.layout import SHARDS
from corelib.settings.sampling import SamplesStage

IMAGES, BATCHES = "images", "batches"

SampleKey = tuple[str, str, int]
"""(style, object, seed)."""


def image_name(style: str, object_: str, seed: int) -> str:
    """File name of an image, as the benchmark's evaluator expects it."""
    return f"{style}_{object_}_seed{seed}.jpg"


def record_path(number: int) -> Path:
    """Path of a batch's record within the run's folder; the record exists if and only if the batch is complete."""
    return Path(BATCHES) / f"{number:05d}.json"


def split_into_batches(settings: SamplesStage) -> list[list[SampleKey]]:
    """The grid in batches; the last one may be shorter."""
    size = settings.sampling.batch
    return [settings.grid[start : start + size] for start in range(0, len(settings.grid), size)]


def shard_manifests(settings: SamplesStage, batches_per_shard: int) -> list[Path]:
    """The paths of the manifests of a run's shards within the run's folder. Of n shards, number i samples the batches
    i, i + n, i + 2n, ..."""
    num_shards = math.ceil(len(split_into_batches(settings)) / batches_per_shard)
    return [Path(SHARDS) / f"{shard:04d}-of-{num_shards:04d}.json" for shard in range(num_shards)]
