"""The index of UnlearnCanvas: location, size and sha256 of each image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from corelib.errors import ArtefactError
from corelib.files.atomic import atomic_write
from corelib.files.hashing import sha256_of_text
from corelib.files.parquet_files import UnreadableParquet, limited_reading, open_parquet
from corelib.files.paths import unresolved_path_inside

SCHEMA = pa.schema(
    [
        ("style", pa.string()),
        ("object", pa.string()),
        ("index", pa.int32()),
        ("file", pa.string()),
        ("row", pa.int64()),
        ("size", pa.int64()),
        ("sha256", pa.string()),
    ]
)

SEPARATE_FILE = -1
"""Row number of an image that is stored as a separate file."""


@dataclass(frozen=True)
class ImageLocation:
    """Location, size and sha256 of an image.

    Attributes:
        file: path relative to the images' folder.
        row: row in a parquet file; `SEPARATE_FILE` for an image file.
        size: size in bytes.
        sha256: sha256 of its bytes.
    """

    file: str
    row: int
    size: int
    sha256: str


ImageKey = tuple[str, str, int]
"""Style, object, and 1-based index."""


@dataclass(frozen=True)
class ImageIndex:
    """Every image of the benchmark's styles and objects."""

    places: Mapping[ImageKey, ImageLocation]

    @cached_property
    def digest(self) -> str:
        """Digest of the images: equal for a folder and for parquet files of the same images, wherever they are."""
        return sha256_of_text("\n".join(f"{'/'.join(map(str, key))} {self.places[key].sha256}" for key in self.places))


@dataclass(frozen=True)
class RequiredImages:
    """The images that must be present.

    Attributes:
        has_objects: whether the user's own folders of concepts have folders of objects.
    """

    styles: Sequence[str]
    objects: Sequence[str]
    images_per_cell: int
    has_objects: bool = True

    def images(self) -> Iterator[ImageKey]:
        """Keys of all images, ordered by style, object and index."""
        for style in self.styles:
            for object_ in self.objects:
                for index in range(1, self.images_per_cell + 1):
                    yield style, object_, index

    def missing_from(self, index: ImageIndex) -> list[ImageKey]:
        """The keys of the images that an index, which may have been built for another study, does not have."""
        return [key for key in self.images() if key not in index.places]


def write_index(path: Path, index: ImageIndex) -> None:
    """Write an index as parquet; equal indices are equal files."""
    columns = [
        [key[0] for key in index.places],
        [key[1] for key in index.places],
        [key[2] for key in index.places],
        *([getattr(place, name) for place in index.places.values()] for name in ("file", "row", "size", "sha256")),
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    with atomic_write(path) as temporary:
        pq.write_table(pa.table(arrays, schema=SCHEMA), temporary)


def read_index(path: Path) -> ImageIndex:
    """The index in a file. Raises `ArtefactError` if it is damaged, or if a path leads out of the images' folder."""
    try:
        with limited_reading():
            table = open_parquet(path, {field.name: field.type for field in SCHEMA}).read(columns=SCHEMA.names)
            if any(column.null_count for column in table.columns):
                raise UnreadableParquet("it has missing values")
            rows = table.to_pylist()
    except UnreadableParquet as error:
        raise ArtefactError(f"{path}: not readable as an index of images ({error}).") from None
    places = {}
    for row in rows:
        try:
            unresolved_path_inside(path.parent, row["file"])
        except ArtefactError:
            raise ArtefactError(
                f"{path}: the image file {row['file']!r} leads out of its folder, expected one inside it."
            ) from None
        places[row["style"], row["object"], row["index"]] = ImageLocation(
            row["file"], row["row"], row["size"], row["sha256"]
        )
    return ImageIndex(places)
