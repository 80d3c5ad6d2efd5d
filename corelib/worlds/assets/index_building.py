"""Builds the index of a world's images: reads all of them once, and reports all faults together.

The benchmark is a folder STYLE/OBJECT/INDEX.jpg (`benchmark_folders.py`), or parquet files from the Hub whose rows have
an image and a caption. Style and object are recovered from the caption, the index from the order of the rows. Images of
the user's own are in folders of concepts (`concept_folders.py`).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
from tqdm import tqdm

from corelib.errors import AssetError, first_line_of
from corelib.files.atomic import write_text
from corelib.files.image_files import MAX_FILE_BYTES, open_image
from corelib.files.image_modes import UnusableImage, as_rgb
from corelib.files.parquet_files import UnreadableParquet, limited_reading, open_parquet
from corelib.files.paths import read_bytes
from corelib.files.placeholders import UNPRINTABLE, first_bytes, placeholder_kind
from corelib.files.text import escaped, natural_key, normalise_name
from corelib.worlds.assets.benchmark_folders import find_image_files, style_names
from corelib.worlds.assets.concept_folders import find_concept_files, layout_of
from corelib.worlds.assets.image_index import SCHEMA, SEPARATE_FILE, ImageIndex, ImageKey, ImageLocation, RequiredImages
from corelib.worlds.benchmark_images import IMAGE_COLUMN

UNUSED_STYLES = frozenset(
    {"Blue_Blooming", "Crypto_Punks", "Dreamweave", "Foliage_Patchwork", "Impasto"}
    | {"Palette_Knife", "Pointillism", "Rainwash", "Realistic_Watercolor", "Techno"}
)
"""Styles on disk and on the Hub that are not among the benchmark's 50 styles (protocol, section 1)."""

ROWS_PER_BATCH = 16
"""Rows of a parquet file read at a time, so that few images of three megabytes are in memory together."""

MAX_CAPTION_LENGTH = 200
"""Maximum length in characters; the time to match the pattern grows with the cube of the length."""

CAPTION = re.compile(r"\s*an?\s+(?P<object>.+?)\s+image\s+in\s+(?P<style>.+?)\s+style\s*\.?\s*", re.IGNORECASE)


def index_images(
    root: Path,
    wanted: RequiredImages,
    photo_style: str | None,
    threads: int,
    report: Path,
    say: Callable[[str], object] = lambda line: None,
) -> ImageIndex:
    """Read every image below `root` once, in parallel, and build the index.

    Args:
        root: folder STYLE/OBJECT/INDEX.jpg, or a folder with parquet files at any depth; for images of the user's own,
            a folder CONCEPT/FILE or CONCEPT/OBJECT/FILE.
        wanted: the images that must be present; the benchmark's unused styles are ignored.
        photo_style: the style that captions call Photo; None for images of the user's own.
        threads: number of images read at the same time.
        report: file for the list of all faults, one per line; written only if there are faults.
        say: function that shows a line to the user, for notes on accepted deviations from the documented names.

    Raises `AssetError` if an image is missing, truncated, not an image, too large, or duplicated.
    """
    layout = "STYLE/OBJECT/INDEX.jpg or parquet files" if photo_style is not None else layout_of(wanted.has_objects)
    if not root.is_dir():
        raise AssetError(f"{root}: there is no such folder, expected one with {layout}.")
    shards = _shards_below(root) if photo_style is not None else []
    if odd := [shard for shard in shards if not str(shard.relative_to(root)).isprintable()]:
        raise AssetError(f"{escaped(str(odd[0]))}: {UNPRINTABLE}.")
    if shards and photo_style is not None:
        places, faults = _read_parquet(root, shards, wanted, photo_style, threads)
        faults += [f"{root / _file_of(key)}: missing" for key in wanted.images() if key not in places]
    else:
        places, faults = _read_folder(root, wanted, photo_style, threads, say)
    faults += _duplicates(root, places)
    if faults:
        write_text(report, "\n".join(faults) + "\n")
        raise AssetError(
            f"{root}: {len(faults)} faults in the images, all listed in {report}; the first: {faults[0]}; expected "
            f"{layout} with {len(list(wanted.images()))} complete, distinct images."
        )
    report.unlink(missing_ok=True)
    return ImageIndex({key: places[key] for key in wanted.images()})


def check_may_be_written(path: Path) -> None:
    """Raise `AssetError` if an index at `path` would replace a file that is not an index of images."""
    if os.path.lexists(path) and not _is_index(path):
        raise AssetError(
            f"world.assets.image_index is {path}, which exists and is not an index of images; name a new file, which "
            "will be written, or remove this one."
        )


def _shards_below(root: Path) -> list[Path]:
    """The parquet files below a folder, following links, without hidden files and without image indices."""
    shards, visited = [], set()
    for folder, folders, files in os.walk(root, followlinks=True):
        visited.add(os.path.realpath(folder))
        folders[:] = [
            name for name in folders if not name.startswith(".") and os.path.realpath(Path(folder, name)) not in visited
        ]
        names = [name for name in files if name.lower().endswith(".parquet") and not name.startswith(".")]
        shards += [Path(folder, name) for name in names]
    return sorted((path for path in shards if not _is_index(path)), key=lambda path: natural_key(str(path)))


def _is_index(path: Path) -> bool:
    try:
        with limited_reading():
            open_parquet(path, {column.name: column.type for column in SCHEMA})
    except UnreadableParquet:
        return False
    return True


IndexedFiles = tuple[dict[ImageKey, ImageLocation], list[str]]


def _read_folder(
    root: Path, wanted: RequiredImages, photo_style: str | None, threads: int, say: Callable[[str], object]
) -> IndexedFiles:
    if photo_style is None:
        search = find_concept_files(root, wanted)
    else:
        search = find_image_files(root, wanted.styles, wanted.objects, wanted.images_per_cell, photo_style)
    for note in search.notes:
        say(f"  {note}")
    keys = [key for key in wanted.images() if key in search.files]

    def inspect(key: ImageKey) -> tuple[ImageLocation, str | None]:
        file = search.files[key]
        try:
            content = read_bytes(root / file, MAX_FILE_BYTES)
        except OSError as error:
            return ImageLocation(file, SEPARATE_FILE, 0, ""), f"not readable ({error.strerror})"
        sha256, fault = _hash_and_fault(content)
        return ImageLocation(file, SEPARATE_FILE, len(content), sha256), fault

    places, faults = {}, list(search.faults)
    with ThreadPoolExecutor(threads) as pool:
        for key, (place, fault) in zip(keys, tqdm(pool.map(inspect, keys), "images", len(keys), unit=""), strict=True):
            places[key] = place
            if fault:
                faults.append(f"{root / place.file}: {fault}")
    missing = [search.missing(key) for key in wanted.images() if key not in places]
    return places, faults + [fault for fault in missing if fault is not None]


def _file_of(key: ImageKey) -> str:
    style, object_, index = key
    return f"{style}/{object_}/{index}.jpg"


def _read_parquet(
    root: Path, shards: list[Path], wanted: RequiredImages, photo_style: str, threads: int
) -> IndexedFiles:
    parse = caption_parser(wanted.styles, wanted.objects, photo_style)
    counts: dict[tuple[str, str], int] = defaultdict(int)
    numbered: list[tuple[Path, int, ImageKey]] = []
    faults = []
    for shard in shards:  # captions first: they determine the rows to read
        for row, caption in enumerate(_read_captions(shard)):
            cell = parse(caption)
            if cell is None:
                words = repr(caption[:MAX_CAPTION_LENGTH])
                faults.append(f"{shard}, row {row}: the caption {words} names no style and object of the benchmark")
            elif cell[0] not in UNUSED_STYLES:
                counts[cell] += 1
                numbered.append((shard, row, (*cell, counts[cell])))
    for cell, count in counts.items():
        if count > wanted.images_per_cell:
            faults.append(f"{root}: {'/'.join(cell)} has {count} images, expected {wanted.images_per_cell}")
    by_shard: dict[Path, dict[int, ImageKey]] = defaultdict(dict)
    for shard, row, key in numbered:
        by_shard[shard][row] = key

    places: dict[ImageKey, ImageLocation] = {}
    with ThreadPoolExecutor(threads) as pool, tqdm(total=len(numbered), desc="images", unit="") as progress:
        for shard, rows in by_shard.items():
            file = shard.relative_to(root).as_posix()
            for batch in _read_images(shard, rows):
                inspected = zip(batch, batch.values(), pool.map(_hash_and_fault, batch.values()), strict=True)
                for row, content, (sha256, fault) in inspected:
                    places[rows[row]] = ImageLocation(file, row, len(content), sha256)
                    if fault:
                        faults.append(f"{shard}, row {row} ({_file_of(rows[row])}): {fault}")
                progress.update(len(batch))
    return places, faults


def _hash_and_fault(content: bytes) -> tuple[str, str | None]:
    return hashlib.sha256(content).hexdigest(), image_fault(content)


def caption_parser(
    styles: Sequence[str], objects: Sequence[str], photo_style: str
) -> Callable[[str], tuple[str, str] | None]:
    """A function that maps a caption to its style and object, ignoring case; it returns None if there is no match.

    Captions are `A OBJECT image in STYLE style.`, with spaces for underscores. The style of photos is called Photo, or
    by its own name.
    """

    style_of = style_names((*styles, *UNUSED_STYLES), photo_style)
    object_of = {normalise_name(object_): object_ for object_ in objects}

    def parse(caption: str) -> tuple[str, str] | None:
        match = CAPTION.fullmatch(" ".join(caption.split())) if len(caption) <= MAX_CAPTION_LENGTH else None
        style, object_ = (normalise_name(match["style"]), normalise_name(match["object"])) if match else ("", "")
        cell = (style_of.get(style), object_of.get(object_))
        return None if cell[0] is None or cell[1] is None else (cell[0], cell[1])

    return parse


def _read_captions(shard: Path) -> list[str]:
    try:
        with limited_reading():
            file = open_parquet(shard, {"image": IMAGE_COLUMN, "text": pa.string()})
            captions: list[str | None] = file.read(columns=["text"]).column("text").to_pylist()
    except UnreadableParquet as error:
        if (placeholder := placeholder_kind(first_bytes(shard))) is not None:
            raise AssetError(f"{shard}: {placeholder}.") from None
        raise AssetError(
            f"{shard}: not readable ({error}), expected parquet with the columns `image` and `text`."
        ) from None
    return [caption or "" for caption in captions]


def _read_images(shard: Path, rows: Mapping[int, ImageKey]) -> Iterator[dict[int, bytes]]:
    """The bytes of the images in some rows, a few at a time, by row."""
    start = 0
    try:
        batches = open_parquet(shard, {"image": IMAGE_COLUMN}).iter_batches(ROWS_PER_BATCH, columns=["image"])
        while (batch := _next_batch(batches, start, rows)) is not None:
            count, contents = batch
            yield contents
            start += count
    except UnreadableParquet as error:
        raise AssetError(f"{shard}: damaged from row {start} on ({error}), expected a complete file.") from None


def _next_batch(
    batches: Iterator[pa.RecordBatch], start: int, rows: Mapping[int, ImageKey]
) -> tuple[int, dict[int, bytes]] | None:
    with limited_reading():
        batch = next(batches, None)
        if batch is None:
            return None
        images = batch.column("image").field("bytes")
        wanted = [row for row in range(start, start + len(batch)) if row in rows]
        return len(batch), {row: images[row - start].as_py() or b"" for row in wanted}


def image_fault(content: bytes) -> str | None:
    """Description of the fault of an image; None if it can be decoded to its last pixel."""
    if (placeholder := placeholder_kind(content)) is not None:
        return placeholder
    try:
        with open_image(content) as image:
            # an eighth of the resolution, but all of the bytes
            image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
            as_rgb(image)
    except UnusableImage as fault:
        return str(fault)
    except Exception as error:  # Pillow raises many kinds for damaged files
        return f"damaged ({first_line_of(error)})"
    return None


def _duplicates(root: Path, places: Mapping[ImageKey, ImageLocation]) -> list[str]:
    first: dict[str, ImageKey] = {}
    faults = []
    for key, place in places.items():
        if not place.size:
            continue  # already reported
        other = first.setdefault(place.sha256, key)
        if other != key:
            faults.append(f"{root}: {_shown(key, place)} has the same bytes as {_shown(other, places[other])}")
    return faults


def _shown(key: ImageKey, place: ImageLocation) -> str:
    return place.file if place.row == SEPARATE_FILE else _file_of(key)
