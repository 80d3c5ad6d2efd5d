"""Finds the user's own images in a folder CONCEPT/FILE, or CONCEPT/OBJECT/FILE if concepts have objects.

Files may have any name; their order by name, with numbers by value, gives their indices. Folders may differ from the
names in the study in case, and may have spaces or hyphens for underscores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from corelib.errors import listed
from corelib.files.placeholders import UNPRINTABLE
from corelib.files.text import escaped, natural_key, normalise_name
from corelib.worlds.assets.benchmark_folders import SYSTEM_FILES, ImageFiles
from corelib.worlds.assets.image_index import ImageKey, RequiredImages

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")

OTHER_ENDINGS = (".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".jp2")
"""Image formats that are not read; a folder that has only such files gets an error that says so."""


def layout_of(has_objects: bool) -> str:
    """The documented layout of a folder of images, in words."""
    return "CONCEPT/OBJECT/FILE.jpg" if has_objects else "CONCEPT/FILE.jpg"


def find_concept_files(root: Path, wanted: RequiredImages) -> ImageFiles:
    """Search a folder for the first images of each concept, or of each concept and object if concepts have objects.

    If they have none, the only name in `wanted.objects` stands for all images of a concept.
    """
    per_cell, objects = wanted.images_per_cell, wanted.objects
    files: dict[ImageKey, str] = {}
    faults: list[str] = []
    notes: list[str] = []
    folders = _subfolders(root, wanted.styles, faults, notes)
    for concept, folder in folders.items():
        cells = _subfolders(folder, objects, faults, notes) if wanted.has_objects else {objects[0]: folder}
        for object_, cell in cells.items():
            found = _image_files(cell)
            if len(found) < per_cell:
                faults.append(f"{cell}: {_content(cell, len(found))}, expected at least {per_cell} images")
                continue
            for index, path in enumerate(found[:per_cell], start=1):
                if not path.name.isprintable():
                    faults.append(f"{escaped(str(path))}: {UNPRINTABLE}")
                files[concept, object_, index] = path.relative_to(root).as_posix()
    unused = [entry.name for entry in _entries(root) if entry.is_dir() and entry not in folders.values()]
    if unused:
        names = listed([escaped(name) for name in unused])
        notes.append(f"{root}: folders that no concept of the study names: {names}")
    return ImageFiles(files, faults, notes, missing=lambda key: None)


def _subfolders(folder: Path, names: Sequence[str], faults: list[str], notes: list[str]) -> dict[str, Path]:
    """The subfolder of each name; names without one are faults."""
    children = [child for child in _entries(folder) if child.is_dir()]
    found = {}
    for name in names:
        exact = [child for child in children if child.name == name]
        near = exact or [child for child in children if normalise_name(child.name) == normalise_name(name)]
        if len(near) > 1:
            either = " or ".join(escaped(child.name) for child in near)
            faults.append(f"{folder / name}: it may be {either}, expected only one of them")
        elif not near:
            present = listed([escaped(child.name) for child in children]) or "no folders"
            faults.append(f"{folder}: it has no folder {name}, but {present}")
        else:
            found[name] = near[0]
            if not exact:
                notes.append(f"{escaped(str(near[0]))} is read as {name}")
    return found


def _image_files(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.suffix.lower() in IMAGE_ENDINGS and path.is_file()]


def _content(folder: Path, count: int) -> str:
    """What a folder with too few images has, in words."""
    others = [path.name for path in _entries(folder) if path.suffix.lower() in OTHER_ENDINGS]
    folders = [path.name for path in _entries(folder) if path.is_dir()]
    text = "it has 1 image" if count == 1 else f"it has {count} images"
    if others:
        text += f" and {len(others)} files such as {escaped(others[0])}, which must be converted to JPEG or PNG"
    elif folders and not count:
        text += f" but folders such as {escaped(folders[0])}, which may belong in `world.objects`"
    return text


def _entries(folder: Path) -> Iterator[Path]:
    """The entries of a folder by name, numbers by value, without hidden files and litter."""
    if folder.is_dir():
        for path in sorted(folder.iterdir(), key=lambda path: (natural_key(path.name.casefold()), path.name)):
            if not path.name.startswith(".") and path.name.lower() not in SYSTEM_FILES:
                yield path
