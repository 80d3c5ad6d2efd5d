"""The grid of images that a run samples: file names and batches."""

from __future__ import annotations

from pathlib import Path

from corelib.settings.sampling import SamplesStage

IMAGES, BATCHES = "images", "batches"

ImageKey = tuple[str, str, int]
"""(style, object, seed)."""


def image_name(style: str, object_: str, seed: int) -> str:
    """File name of an image, as the benchmark's evaluator expects it."""
    return f"{style}_{object_}_seed{seed}.jpg"


def record_path(number: int) -> Path:
    """Path of a batch's record within the run's folder; the record exists if and only if the batch is complete."""
    return Path(BATCHES) / f"{number:05d}.json"


def split_into_batches(settings: SamplesStage) -> list[list[ImageKey]]:
    """The grid in batches; the last one may be shorter."""
    size = settings.sampling.batch
    return [settings.grid[start : start + size] for start in range(0, len(settings.grid), size)]
