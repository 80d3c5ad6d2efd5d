"""Files of sampled batches, written in a thread while the next batch is sampled."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from corelib.errors import ArtefactError
from corelib.files.atomic import atomic_write
from corelib.files.hashing import sha256_of_path
from corelib.files.paths import path_inside
from corelib.files.sealed_json import write_record
from corelib.sampling.batch_record import BatchRecord
from corelib.sampling.grid import IMAGES, SampleKey, image_name, record_path


class BatchWriter:
    """Writes the images of each batch, and then the batch's record. One batch at a time is being written.

    Use it as a context: the block ends when the last batch is written, even if the block raises.

    Args:
        folder: folder of the run.
        trained: seals of the trained models behind the images.
        jpeg_quality: quality with which images are saved.
        must_be_images: whether a constant or non-finite image is an error, as it is of the original model.
    """

    def __init__(self, folder: Path, trained: Mapping[str, str], jpeg_quality: int, must_be_images: bool) -> None:
        self._folder = folder
        self._trained = trained
        self._jpeg_quality = jpeg_quality
        self._must_be_images = must_be_images
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._current: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._thread.shutdown()
        if kind is None:
            self._wait()

    def write(self, number: int, images: list[SampleKey], values: Tensor) -> None:
        """Begin to write a batch, after the batch before it is written.

        Args:
            number: number of the batch.
            images: (style, object, seed) of each image.
            values: the images, (len(images), 3, side, side) on the CPU; black is 0 and white is 1.

        Raises what writing the batch before has raised: `OSError`, or `ArtefactError` if the original model has sampled
        a constant or non-finite image. The end of the block raises the same for the last batch.
        """
        self._wait()
        self._current = self._thread.submit(self._write, number, images, values)

    def _wait(self) -> None:
        current, self._current = self._current, None
        if current is not None:
            current.result()

    def _write(self, number: int, images: list[SampleKey], values: Tensor) -> None:
        flagged = []
        hashes = {}
        for image, one in zip(images, values, strict=True):
            name = image_name(*image)
            pixels = to_pixels(one)
            if not torch.isfinite(one).all() or (pixels == pixels[0, 0]).all():
                flagged.append(name)
            path = path_inside(self._folder, f"{IMAGES}/{name}")
            with atomic_write(path) as temporary:
                Image.fromarray(pixels).save(temporary, format="JPEG", quality=self._jpeg_quality)
            hashes[name] = sha256_of_path(path)
        if flagged and self._must_be_images:
            raise ArtefactError(
                f"{self._folder / IMAGES / flagged[0]}: the original model sampled a constant or non-finite image; "
                "check the base model and `sampling.precision`."
            )
        record = BatchRecord.sealed(images=hashes, flagged=flagged, trained=dict(self._trained))
        write_record(self._folder / record_path(number), record)


def to_pixels(values: Tensor) -> NDArray[np.uint8]:
    """Convert an image (3, side, side), black 0 and white 1, to (side, side, 3) in 8 bits; non-finite is black."""
    finite = torch.where(torch.isfinite(values), values, 0.0)
    return (finite.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
