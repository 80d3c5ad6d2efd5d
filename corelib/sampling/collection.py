"""Collection of the sampled images of a run: completeness of its batches, and the manifest of all images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from corelib.errors import ArtefactError
from corelib.files.hashing import sha256_of_path
from corelib.files.paths import path_inside
from corelib.runs.layout import MANIFEST, SHARDS
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext, StageResult
from corelib.sampling.batch_record import read_batch
from corelib.sampling.grid import IMAGES, SampleKey, image_name, record_path, split_into_batches
from corelib.settings.sampling import SamplesStage


def gather_samples(settings: SamplesStage, context: StageContext) -> StageResult:
    """Stage: check that every image of the grid exists and has the sha256 in the record of its batch.

    Raises `ArtefactError` for the first incomplete batch, after deleting its record so that it is sampled again.
    """
    flagged: list[str] = []
    for number, images in enumerate(split_into_batches(settings)):
        record = context.folder / record_path(number)
        if not is_complete(record, context.trained):
            if record.is_file():
                record.unlink()
            for shard in (context.folder / SHARDS).glob("*.json"):
                shard.unlink()
            names = f"{image_name(*images[0])} to {image_name(*images[-1])}"
            raise ArtefactError(
                f"{record}: an image of its batch ({names}) is missing, damaged, or from another build of the model; "
                "ask for the target again to sample only such batches again."
            )
        flagged += read_batch(record).flagged
    delta = context.inputs.get("delta")
    diverged_at = delta.facts["diverged_at"] if delta else None
    return StageResult([IMAGES], {"grid": settings.grid, "flagged": sorted(flagged), "diverged_at": diverged_at})


def is_complete(record: Path, trained: Mapping[str, str]) -> bool:
    """Whether a batch is complete: its record and all images exist, are undamaged, and come from the given models.

    Args:
        record: path of the batch's record.
        trained: seals of the trained models behind the images, by the names of their runs.
    """
    try:
        batch = read_batch(record)
        return batch.trained == trained and all(
            sha256_of_path(path_inside(record.parent.parent, f"{IMAGES}/{name}")) == sha256
            for name, sha256 in batch.images.items()
        )
    except (ArtefactError, OSError):
        return False


def image_paths(samples: Manifest) -> dict[SampleKey, Path]:
    """Paths of the images of a run in the order of its grid, after verifying all files against the manifest."""
    folder = samples.file(IMAGES)
    try:
        grid = [(str(style), str(object_), int(seed)) for style, object_, seed in samples.facts["grid"]]
    except (TypeError, ValueError):
        raise ArtefactError(f"{samples.folder / MANIFEST}: its grid is not a list of (style, object, seed).") from None
    return {image: path_inside(folder, image_name(*image)) for image in grid}
