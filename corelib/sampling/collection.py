"""Where the images of a run lie, how they are cut into batches, and vouching for all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from corelib.errors import ArtefactError
from corelib.files.hashing import sha256_of
from corelib.files.paths import below
from corelib.runs.layout import MANIFEST, SHARDS
from corelib.runs.manifest import Manifest
from corelib.runs.stage import Outcome, Work
from corelib.sampling.batch_record import read_batch
from corelib.sampling.grid import IMAGES, SampledImage, batches_of, image_name, record_path
from corelib.settings.sampling import SamplesStage


def gather_samples(settings: SamplesStage, work: Work) -> Outcome:
    """Stage: check that every image of the grid is there with the bytes its batch vouches for.

    Raises `ArtefactError` for the first one that is not, after marking its batch to be sampled again.
    """
    flagged: list[str] = []
    for number, images in enumerate(batches_of(settings)):
        record = work.folder / record_path(number)
        if not is_whole(record, work.trained):
            if record.is_file():
                record.unlink()
            for shard in (work.folder / SHARDS).glob("*.json"):
                shard.unlink()
            names = f"{image_name(*images[0])} to {image_name(*images[-1])}"
            raise ArtefactError(
                f"{record}: an image of its batch ({names}) is missing, damaged, or of another build of the model, "
                "expected all of them whole; ask for the target again: such batches alone will be sampled again."
            )
        flagged += read_batch(record).flagged
    delta = work.inputs.get("delta")
    diverged_at = delta.facts["diverged_at"] if delta else None
    return Outcome([IMAGES], {"grid": settings.grid, "flagged": sorted(flagged), "diverged_at": diverged_at})


def is_whole(record: Path, trained: Mapping[str, str]) -> bool:
    """Whether the record of a batch is there and every image it vouches for, sampled from these very models."""
    try:
        batch = read_batch(record)
        return batch.trained == trained and all(
            sha256_of(below(record.parent.parent, f"{IMAGES}/{name}")) == sha256
            for name, sha256 in batch.images.items()
        )
    except (ArtefactError, OSError):
        return False


def sampled_images(samples: Manifest) -> dict[SampledImage, Path]:
    """The path of every image of a run, in the order of its grid, after checking that all bytes are as vouched for."""
    folder = samples.file(IMAGES)
    try:
        grid = [(str(style), str(object_), int(seed)) for style, object_, seed in samples.facts["grid"]]
    except (TypeError, ValueError):
        raise ArtefactError(f"{samples.folder / MANIFEST}: its grid is no list of style, object and seed.") from None
    return {image: below(folder, image_name(*image)) for image in grid}
