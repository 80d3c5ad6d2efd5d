"""Reads a benchmark's images by style, object and index; errors name the file."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from corelib.errors import ArtefactError, AssetError
from corelib.files.atomic import atomic_write
from corelib.files.hashing import sha256_of_path
from corelib.files.image_files import MAX_FILE_BYTES, decode_image, read_image
from corelib.files.parquet_files import UnreadableParquet, limited_reading, open_parquet
from corelib.files.paths import path_inside, read_bytes, resolve_links
from corelib.runs.manifest import Manifest
from corelib.worlds.assets.image_index import SEPARATE_FILE, ImageKey, ImageLocation, read_index

IMAGE_COLUMN = pa.struct([("bytes", pa.binary())])
"""Image column of the Hub's parquet files, without the fields that are not read."""


class BenchmarkImages(Protocol):
    """A world's real images, independent of their storage format."""

    def read(self, style: str, object_: str, index: int) -> Image.Image:
        """An image in RGB. Raises `AssetError` if it is missing, damaged, not an image, or not the expected one."""

    def sha256(self, style: str, object_: str, index: int) -> str:
        """Sha256 of the image's bytes."""

    def files(self, images: Sequence[ImageKey], folder: Path) -> list[Path]:
        """Paths of image files, for libraries that need files; images without a file are written into `folder`."""

    def check(self) -> None:
        """Raise `ArtefactError` if the bytes that were read do not match their sha256. Call it after reading."""


def benchmark_images(world: Manifest) -> BenchmarkImages:
    """The images of a world, from a manifest with the sha256 of their folder or of their index."""
    return IndexedImages(world) if "image_index" in world.facts else ImageFolder(world)


class ImageFolder:
    """Images STYLE/OBJECT/INDEX.jpg rendered by a stage, whose manifest has one sha256 for the whole folder."""

    def __init__(self, world: Manifest) -> None:
        self.root = world.place(world.facts["images"])
        self._world = world

    def path(self, style: str, object_: str, index: int) -> Path:
        """Path of an image."""
        return path_inside(self.root, f"{style}/{object_}/{index}.jpg")

    def check(self) -> None:
        """See `BenchmarkImages`. Checks the whole folder; `read` reports a damaged image by itself."""
        self._world.file(self._world.facts["images"])

    def read(self, style: str, object_: str, index: int) -> Image.Image:
        """See `BenchmarkImages`."""
        path, advice = self.path(style, object_, index), f"delete {self._world.folder} and ask for the target again."
        if not path.is_file():
            files = sorted(file.name for file in path.parent.glob("*")) if path.parent.is_dir() else []
            raise AssetError(f"{path}: the image is missing, its folder has {len(files)} files; {advice}")
        try:
            return read_image(path)
        except AssetError as error:
            raise AssetError(f"{str(error).rstrip('.')}; {advice}") from None

    def sha256(self, style: str, object_: str, index: int) -> str:
        """See `BenchmarkImages`."""
        return sha256_of_path(self.path(style, object_, index))

    def files(self, images: Sequence[ImageKey], folder: Path) -> list[Path]:
        """See `BenchmarkImages`. Returns the original files."""
        for key in images:
            self.read(*key)
        return [self.path(*key) for key in images]


def _locate_images(world: Manifest) -> Mapping[ImageKey, ImageLocation]:
    """Location of each image: from the user's current index, since images may have moved into parquet files.

    If that index no longer describes the same images, from the run's own copy, made when they were adopted.
    """
    adopted = read_index(world.file(world.facts["image_index"]))
    if "places" in world.facts:
        with suppress(ArtefactError):
            current = read_index(resolve_links(world.place(world.facts["places"])))
            if current.digest == adopted.digest:
                return current.places
    return adopted.places


class IndexedImages:
    """The user's images, in a folder or in the Hub's parquet files; each is checked against the index when it is read.

    A parquet file is read by whole row groups (100 images on the Hub, some 300 MB). The last row group is cached, so
    images that are read in order share it.
    """

    def __init__(self, world: Manifest) -> None:
        self.root = resolve_links(world.place(world.facts["images"]))
        self.places = _locate_images(world)
        self._lock = threading.Lock()
        self._group: tuple[str, int, list[bytes]] = ("", -1, [])
        self._shards: dict[str, pq.ParquetFile] = {}

    def read(self, style: str, object_: str, index: int) -> Image.Image:
        """See `BenchmarkImages`."""
        return decode_image(self.content(style, object_, index), self._name((style, object_, index)))

    def sha256(self, style: str, object_: str, index: int) -> str:
        """See `BenchmarkImages`. Returns the indexed sha256, which `read` and `files` enforce."""
        return self._place((style, object_, index)).sha256

    def content(self, style: str, object_: str, index: int) -> bytes:
        """The bytes of an image. Raises `AssetError` if they are not those that were indexed."""
        key = (style, object_, index)
        place = self._place(key)
        content = self._read_file(place) if place.row == SEPARATE_FILE else self._read_row(place)
        if hashlib.sha256(content).hexdigest() != place.sha256:
            raise AssetError(
                f"{self._name(key)}: the image has changed since it was indexed, expected the sha256 "
                f"{place.sha256[:12]}; restore it, or lock the new one with `make assets`."
            )
        return content

    def files(self, images: Sequence[ImageKey], folder: Path) -> list[Path]:
        """See `BenchmarkImages`."""
        paths = []
        for key in images:
            content, place = self.content(*key), self._place(key)
            path = self.root / place.file
            if place.row != SEPARATE_FILE:
                path = path_inside(folder, f"{key[0]}_{key[1]}_{key[2]}.jpg")
                with atomic_write(path) as temporary:
                    temporary.write_bytes(content)
            paths.append(path)
        return paths

    def check(self) -> None:
        """See `BenchmarkImages`. Does nothing, since every image was checked when it was read."""

    def _place(self, key: ImageKey) -> ImageLocation:
        if key not in self.places:
            raise AssetError(f"{self.root}: the index has no image {'/'.join(map(str, key))}.")
        return self.places[key]

    def _name(self, key: ImageKey) -> str:
        place = self._place(key)
        path = self.root / place.file
        return str(path) if place.row == SEPARATE_FILE else f"{path}, row {place.row} ({'/'.join(map(str, key))})"

    def _read_file(self, place: ImageLocation) -> bytes:
        try:
            return read_bytes(self.root / place.file, MAX_FILE_BYTES)
        except OSError as error:
            raise AssetError(
                f"{self.root / place.file}: the image is not readable ({error.strerror}), expected the indexed image."
            ) from None

    def _read_row(self, place: ImageLocation) -> bytes:
        with self._lock:
            try:
                with limited_reading():
                    path = self.root / place.file
                    shard = self._shards.get(place.file) or open_parquet(path, {"image": IMAGE_COLUMN})
                    self._shards[place.file] = shard
                    group, start = _group_of(shard, place.row)
                    if self._group[:2] != (place.file, group):
                        images = shard.read_row_group(group, columns=["image"]).column("image")
                        contents = [content for chunk in images.chunks for content in chunk.field("bytes").to_pylist()]
                        self._group = (place.file, group, contents)
                    return self._group[2][place.row - start] or b""
            except UnreadableParquet as error:
                raise AssetError(
                    f"{self.root / place.file}: row {place.row} is not readable ({error}), expected the indexed image."
                ) from None


def _group_of(shard: pq.ParquetFile, row: int) -> tuple[int, int]:
    """The row group of a row, and the number of its first row."""
    start = 0
    for group in range(shard.metadata.num_row_groups):
        count = shard.metadata.row_group(group).num_rows
        if row < start + count:
            return group, start
        start += count
    raise IndexError(f"it has {start} rows")
