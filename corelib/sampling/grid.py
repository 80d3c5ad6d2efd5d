"""The grid of images that a run samples: names, batches, shards."""

from __future__ import annotations

from pathlib import Path

from corelib.settings.sampling import SamplesStage

IMAGES, BATCHES = "images", "batches"

SampledImage = tuple[str, str, int]
"""Style, object, seed."""


def image_name(style: str, object_: str, seed: int) -> str:
    """The file name that the benchmark's evaluator expects."""
    return f"{style}_{object_}_seed{seed}.jpg"


def record_path(number: int) -> Path:
    """The record of a batch below a run's folder: it exists if and only if the batch is whole."""
    return Path(BATCHES) / f"{number:05d}.json"


def batches_of(settings: SamplesStage) -> list[list[SampledImage]]:
    """The grid cut into batches, the last one possibly short."""
    size = settings.sampling.batch
    return [settings.grid[start : start + size] for start in range(0, len(settings.grid), size)]
