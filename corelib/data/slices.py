"""Data slicing: the forget set D_f and the retain set D_r of a task, as lists of images with their sha256."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from corelib.errors import ArtefactError, ConfigurationError
from corelib.files.json_files import read_json, write_json
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.data import SliceStage
from corelib.worlds.benchmark_images import benchmark_images

SLICE = "slice.json"


@dataclass(frozen=True)
class Pair:
    """A training image and its concept, given by style and object: (x_0, p) in the paper."""

    style: str
    object: str
    index: int


@dataclass(frozen=True)
class Slice:
    """The forget and retain sets of one task, with the sha256 of each image."""

    forget: list[Pair]
    retain: list[Pair]
    sha256: Mapping[Pair, str]


def product_pairs(styles: Sequence[str], objects: Sequence[str], images: Sequence[int]) -> list[Pair]:
    """Every style x object x image, styles first."""
    return [Pair(style, object_, index) for style in styles for object_ in objects for index in images]


def slice_images(settings: SliceStage, context: StageContext) -> StageResult:
    """Stage: decode every image of a task's forget and retain sets, and list the pairs with their sha256.

    Raises `AssetError` for the first image that is missing, damaged or not an image, and `ConfigurationError` if the
    sets overlap.
    """
    if overlap := sorted(set(settings.forget) & set(settings.retain)):
        raise ConfigurationError(f"{overlap[0]} is in both the forget and the retain set; remove it from one.")
    images = benchmark_images(context.inputs["images"])

    def check_and_hash(pair: Pair) -> list[str | int]:
        images.read(pair.style, pair.object, pair.index)
        return [pair.style, pair.object, pair.index, images.sha256(pair.style, pair.object, pair.index)]

    with ThreadPoolExecutor(context.threads) as pool:
        listed = {
            "forget": list(pool.map(check_and_hash, product_pairs(settings.forget, settings.objects, settings.images))),
            "retain": list(pool.map(check_and_hash, product_pairs(settings.retain, settings.objects, settings.images))),
        }
    images.check()
    write_json(context.folder / SLICE, listed)
    return StageResult([SLICE], {name: len(pairs) for name, pairs in listed.items()})


def read_slice(path: Path) -> Slice:
    """Read a slice that `slice_images` wrote. Raises `ArtefactError` if the file is not a slice."""
    listed = read_json(path)
    try:
        forget, retain = ([_parse_entry(*entry) for entry in listed[side]] for side in ("forget", "retain"))
    except (KeyError, TypeError):
        raise ArtefactError(f"{path}: not a slice of images; delete it and ask for the target again.") from None
    return Slice([pair for pair, _ in forget], [pair for pair, _ in retain], dict([*forget, *retain]))


def _parse_entry(style: str, object_: str, index: int, sha256: str) -> tuple[Pair, str]:
    if not (isinstance(style, str) and isinstance(object_, str) and isinstance(index, int) and isinstance(sha256, str)):
        raise TypeError
    return Pair(style, object_, index), sha256
