"""Making the index of UnlearnCanvas: the one time that all of its images are read, when every fault is found at once.

The benchmark comes as a folder STYLE/OBJECT/INDEX.jpg (`image_folders.py`), or from the Hub as parquet files whose rows
have an image and a caption: style and object are recovered from the caption, the index from the order of the rows.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from tqdm import tqdm

from corelib.errors import AssetError, first_line_of
from corelib.files.atomic import write_text
from corelib.files.image_files import MOST_BYTES, opened
from corelib.files.parquet_files import UnreadableParquet, open_parquet, reading_within_bounds
from corelib.files.paths import content_of
from corelib.files.pixels import Unusable, as_rgb
from corelib.files.placeholders import UNPRINTABLE, beginning_of, stands_in
from corelib.files.printable import escaped
from corelib.models.compatibility import plain
from corelib.worlds.benchmark_images import IMAGE
from corelib.worlds.unlearn_canvas.image_folders import find_files, names_of_styles
from corelib.worlds.unlearn_canvas.image_index import FOLDER, SCHEMA, ImageIndex, Key, Place

UNUSED_STYLES = frozenset(
    {"Blue_Blooming", "Crypto_Punks", "Dreamweave", "Foliage_Patchwork", "Impasto"}
    | {"Palette_Knife", "Pointillism", "Rainwash", "Realistic_Watercolor", "Techno"}
)
"""On disk and on the Hub, but not among the benchmark's 50 styles (protocol, section 1)."""

ROWS_AT_ONCE = 16
"""Of a parquet file, so that few images of three megabytes are in memory together."""

LONGEST_CAPTION = 200
"""Characters; how long the pattern takes grows with the cube of their number."""

CAPTION = re.compile(r"\s*an?\s+(?P<object>.+?)\s+image\s+in\s+(?P<style>.+?)\s+style\s*\.?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Wanted:
    """The images that there have to be."""

    styles: Sequence[str]
    objects: Sequence[str]
    images_per_cell: int

    def images(self) -> Iterator[Key]:
        """All of them, styles first."""
        for style in self.styles:
            for object_ in self.objects:
                for index in range(1, self.images_per_cell + 1):
                    yield style, object_, index


def index_images(
    root: Path,
    wanted: Wanted,
    photo_style: str,
    threads: int,
    report: Path,
    say: Callable[[str], object] = lambda line: None,
) -> ImageIndex:
    """Read every image below `root` once, in parallel, and say what it is.

    Args:
        root: folder STYLE/OBJECT/INDEX.jpg, or a folder with parquet files somewhere below it.
        wanted: the images that there have to be; the benchmark's unused styles are set aside.
        photo_style: the style that captions call Photo.
        threads: how many images are read at once.
        report: where all faults are listed, a line each, if there are any.
        say: how a line is shown to the user: what is called otherwise than documented and was understood.

    Raises `AssetError` if an image is missing, truncated, no image, too large, or there twice.
    """
    if not root.is_dir():
        raise AssetError(f"{root}: there is no such folder, expected STYLE/OBJECT/INDEX.jpg or parquet files in it.")
    shards = _shards_below(root)
    if odd := [shard for shard in shards if not str(shard.relative_to(root)).isprintable()]:
        raise AssetError(f"{escaped(str(odd[0]))}: {UNPRINTABLE}.")
    if shards:
        places, faults = _read_parquet(root, shards, wanted, photo_style, threads)
        faults += [f"{root / _file_of(key)}: missing" for key in wanted.images() if key not in places]
    else:
        places, faults = _read_folder(root, wanted, photo_style, threads, say)
    faults += _twice(root, places)
    if faults:
        write_text(report, "\n".join(faults) + "\n")
        raise AssetError(
            f"{root}: {len(faults)} faults in the images, all listed in {report}; the first: {faults[0]}; expected "
            f"STYLE/OBJECT/INDEX.jpg or parquet files with {len(list(wanted.images()))} images, each whole and once."
        )
    report.unlink(missing_ok=True)
    return ImageIndex({key: places[key] for key in wanted.images()})


def _shards_below(root: Path) -> list[Path]:
    """The parquet files below a folder, through links too; without hidden ones, and without indices of images."""
    found, visited = [], set()
    for folder, folders, files in os.walk(root, followlinks=True):
        visited.add(os.path.realpath(folder))
        folders[:] = [
            name for name in folders if not name.startswith(".") and os.path.realpath(Path(folder, name)) not in visited
        ]
        names = [name for name in files if name.lower().endswith(".parquet") and not name.startswith(".")]
        found += [Path(folder, name) for name in names]
    return sorted((path for path in found if not _is_index(path)), key=_in_order)


def _in_order(path: Path) -> list[tuple[int, str]]:
    """A key by which `train-2` goes before `train-10`, as it does where numbers have leading zeros."""
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _is_index(path: Path) -> bool:
    try:
        with reading_within_bounds():
            open_parquet(path, {column.name: column.type for column in SCHEMA})
    except UnreadableParquet:
        return False
    return True


Found = tuple[dict[Key, Place], list[str]]


def _read_folder(root: Path, wanted: Wanted, photo_style: str, threads: int, say: Callable[[str], object]) -> Found:
    found = find_files(root, wanted.styles, wanted.objects, wanted.images_per_cell, photo_style)
    for note in found.notes:
        say(f"  {note}")
    keys = [key for key in wanted.images() if key in found.files]

    def look(key: Key) -> tuple[Place, str | None]:
        file = found.files[key]
        try:
            content = content_of(root / file, MOST_BYTES)
        except OSError as error:
            return Place(file, FOLDER, 0, ""), f"not readable ({error.strerror})"
        sha256, fault = _looked_at(content)
        return Place(file, FOLDER, len(content), sha256), fault

    places, faults = {}, list(found.faults)
    with ThreadPoolExecutor(threads) as pool:
        for key, (place, fault) in zip(keys, tqdm(pool.map(look, keys), "images", len(keys), unit=""), strict=True):
            places[key] = place
            if fault:
                faults.append(f"{root / place.file}: {fault}")
    missing = [key for key in wanted.images() if key not in places]
    return places, faults + [f"{root / _file_of(key)}: missing, {found.missing(key)}" for key in missing]


def _file_of(key: Key) -> str:
    style, object_, index = key
    return f"{style}/{object_}/{index}.jpg"


def _read_parquet(root: Path, shards: list[Path], wanted: Wanted, photo_style: str, threads: int) -> Found:
    named = reader_of_captions(wanted.styles, wanted.objects, photo_style)
    found: dict[tuple[str, str], int] = defaultdict(int)
    numbered: list[tuple[Path, int, Key]] = []
    faults = []
    for shard in shards:  # captions alone first: they say which rows are wanted
        for row, caption in enumerate(_captions(shard)):
            cell = named(caption)
            if cell is None:
                words = repr(caption[:LONGEST_CAPTION])
                faults.append(f"{shard}, row {row}: the caption {words} names no style and object of the benchmark")
            elif cell[0] not in UNUSED_STYLES:
                found[cell] += 1
                numbered.append((shard, row, (*cell, found[cell])))
    for cell, count in found.items():
        if count > wanted.images_per_cell:
            faults.append(f"{root}: {'/'.join(cell)} has {count} images, expected {wanted.images_per_cell}")
    by_shard: dict[Path, dict[int, Key]] = defaultdict(dict)
    for shard, row, key in numbered:
        by_shard[shard][row] = key

    places: dict[Key, Place] = {}
    with ThreadPoolExecutor(threads) as pool, tqdm(total=len(numbered), desc="images", unit="") as progress:
        for shard, rows in by_shard.items():
            file = shard.relative_to(root).as_posix()
            for batch in _contents(shard, rows):
                looked_at = zip(batch, batch.values(), pool.map(_looked_at, batch.values()), strict=True)
                for row, content, (sha256, fault) in looked_at:
                    places[rows[row]] = Place(file, row, len(content), sha256)
                    if fault:
                        faults.append(f"{shard}, row {row} ({_file_of(rows[row])}): {fault}")
                progress.update(len(batch))
    return places, faults


def _looked_at(content: bytes) -> tuple[str, str | None]:
    return hashlib.sha256(content).hexdigest(), fault_of(content)


def reader_of_captions(
    styles: Sequence[str], objects: Sequence[str], photo_style: str
) -> Callable[[str], tuple[str, str] | None]:
    """A function from a caption to its style and object, whatever its case; None if it names none.

    Captions are `A OBJECT image in STYLE style.` with blanks for underscores; photos are called Photo, or by the name
    of their style.
    """

    style_of = names_of_styles((*styles, *UNUSED_STYLES), photo_style)
    object_of = {plain(object_): object_ for object_ in objects}

    def named(caption: str) -> tuple[str, str] | None:
        named_by = CAPTION.fullmatch(" ".join(caption.split())) if len(caption) <= LONGEST_CAPTION else None
        style, object_ = (plain(named_by["style"]), plain(named_by["object"])) if named_by else ("", "")
        cell = (style_of.get(style), object_of.get(object_))
        return None if cell[0] is None or cell[1] is None else (cell[0], cell[1])

    return named


def _captions(shard: Path) -> list[str]:
    try:
        with reading_within_bounds():
            file = open_parquet(shard, {"image": IMAGE, "text": pa.string()})
            captions: list[str | None] = file.read(columns=["text"]).column("text").to_pylist()
    except UnreadableParquet as error:
        if (what := stands_in(beginning_of(shard))) is not None:
            raise AssetError(f"{shard}: {what}.") from None
        raise AssetError(
            f"{shard}: not readable ({error}), expected parquet with the columns `image` and `text`."
        ) from None
    return [caption or "" for caption in captions]


def _contents(shard: Path, rows: Mapping[int, Key]) -> Iterator[dict[int, bytes]]:
    """The bytes of some rows' images, a few at a time."""
    start = 0
    try:
        batches = open_parquet(shard, {"image": IMAGE}).iter_batches(ROWS_AT_ONCE, columns=["image"])
        while (found := _next(batches, start, rows)) is not None:
            count, contents = found
            yield contents
            start += count
    except UnreadableParquet as error:
        raise AssetError(f"{shard}: damaged from row {start} on ({error}), expected a whole file.") from None


def _next(
    batches: Iterator[pa.RecordBatch], start: int, rows: Mapping[int, Key]
) -> tuple[int, dict[int, bytes]] | None:
    with reading_within_bounds():
        batch = next(batches, None)
        if batch is None:
            return None
        images = batch.column("image").field("bytes")
        wanted = [row for row in range(start, start + len(batch)) if row in rows]
        return len(batch), {row: images[row - start].as_py() or b"" for row in wanted}


def fault_of(content: bytes) -> str | None:
    """What is wrong with an image, in words; None if it can be decoded to its last pixel."""
    if (what := stands_in(content)) is not None:
        return what
    try:
        with opened(content) as image:
            image.draft("RGB", (image.width // 8, image.height // 8))  # an eighth of the pixels, but all of the bytes
            as_rgb(image)
    except Unusable as fault:
        return str(fault)
    except Exception as error:  # Pillow raises many kinds for damaged files
        return f"damaged ({first_line_of(error)})"
    return None


def _twice(root: Path, places: Mapping[Key, Place]) -> list[str]:
    first: dict[str, Key] = {}
    faults = []
    for key, place in places.items():
        if not place.size:
            continue  # said already
        other = first.setdefault(place.sha256, key)
        if other != key:
            faults.append(f"{root}: {_file_of(key)} has the same bytes as {_file_of(other)}")
    return faults
