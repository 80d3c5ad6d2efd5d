"""Records of batches. A record lists the images of one batch of a run's grid and is written once all of them exist."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from corelib.files.sealed_json import SealedRecord, read_record
from corelib.runs.layout import RunName


class BatchRecord(SealedRecord):
    """The record of a batch.

    Attributes:
        images: sha256 of each image, by its file name.
        flagged: file names of the images that are constant or not finite.
        trained: seals of the trained models behind the images, by the names of the models' runs.
    """

    KIND: ClassVar[str] = "record of a batch"

    images: dict[str, str]
    flagged: list[str]
    trained: dict[RunName, str]


def read_batch(path: Path) -> BatchRecord:
    """Read the record of a batch. Raises `ArtefactError` if it is missing, malformed, or does not match its seal."""
    return read_record(path, BatchRecord)
