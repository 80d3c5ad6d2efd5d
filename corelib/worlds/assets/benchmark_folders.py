"""Finds the benchmark's images in a folder STYLE/OBJECT/INDEX.jpg, and accepts common deviations from this layout.

Folders and files may have other names if their meaning is unambiguous: other case, spaces for underscores, other names
for the photos' folder, other extensions, leading zeros, numbers from 0, an extra folder at the top. Notes report the
accepted deviations. For a missing image, the content of its folder is reported.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from corelib.files.placeholders import UNPRINTABLE
from corelib.files.text import escaped, normalise_name
from corelib.worlds.assets.image_index import ImageKey

IMAGE_FILE = re.compile(r"0*(\d{1,9})\.(jpe?g|png)", re.IGNORECASE)
"""Name of an image file. Its format follows from its content, not from its extension."""

SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
"""Files and folders left by operating systems, in lower case; they are ignored like hidden files."""

MAX_EXTRA_FOLDERS = 3
"""Maximum number of extra folder levels at the top."""

FILE_NAME_NOTE = "files named like"
"""Start of the note on file names, which is added only once."""

MAX_SHOWN_NAMES = 3
"""Maximum number of names in a description of a folder's content."""


def style_names(styles: Sequence[str], photo_style: str) -> dict[str, str]:
    """Styles by plain name; the photo style has several."""
    others = ("photo", "photos", "seed image", "seed images")
    return {normalise_name(style): style for style in styles} | dict.fromkeys(others, photo_style)


@dataclass(frozen=True)
class ImageFiles:
    """The image files of a folder.

    Attributes:
        files: path of each image, relative to the folder.
        faults: descriptions of ambiguous names.
        notes: descriptions of accepted deviations from the documented names.
        missing: function that says which image is missing and what its folder has instead; None if a fault does.
    """

    files: Mapping[ImageKey, str]
    faults: list[str]
    notes: list[str]
    missing: Callable[[ImageKey], str | None]


def find_image_files(
    root: Path, styles: Sequence[str], objects: Sequence[str], per_cell: int, photo_style: str
) -> ImageFiles:
    """Search a folder for the images of some styles and objects, numbered 1 to `per_cell`."""
    return _Search(root, styles, objects, per_cell, photo_style).run()


@dataclass(eq=False)
class _Search:
    """A single search of a folder."""

    root: Path
    styles: Sequence[str]
    objects: Sequence[str]
    per_cell: int
    photo_style: str
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def run(self) -> ImageFiles:
        self.top = self._find_top()
        self.folders = self._subfolders(self.top, style_names(self.styles, self.photo_style), self.styles)
        known = {normalise_name(object_): object_ for object_ in self.objects}
        self.cells = {
            (style, object_): cell
            for style, folder in self.folders.items()
            for object_, cell in self._subfolders(folder, known, self.objects).items()
        }
        numbered = {cell: self._files_by_number(folder) for cell, folder in self.cells.items()}
        first = self._first_number(list(numbered.values()))
        files = {}
        for (style, object_), by_number in numbered.items():
            for number in range(first, first + self.per_cell):
                key = (style, object_, number - first + 1)
                if path := self._select_file(key, number, by_number.get(number, [])):
                    files[key] = path.relative_to(self.root).as_posix()
        return ImageFiles(files, self.faults, self.notes, self._describe_missing)

    def _find_top(self) -> Path:
        """The folder with the styles: the root, or the single folder below it that has styles."""
        level = [self.root]
        known = style_names(self.styles, self.photo_style)
        for _ in range(MAX_EXTRA_FOLDERS + 1):
            tops = [
                folder for folder in level if any(normalise_name(child.name) in known for child in _folders(folder))
            ]
            if len(tops) > 1:
                names = " and in ".join(
                    escaped(str(folder.relative_to(self.root))) for folder in tops[:MAX_SHOWN_NAMES]
                )
                self.faults.append(f"{self.root}: styles are in {names}, expected a single folder of styles")
            if tops:
                if tops[0] != self.root:
                    top = escaped(str(tops[0].relative_to(self.root)))
                    self.notes.append(f"{self.root}: the styles are in its folder {top}")
                    self._check_name(tops[0])
                return tops[0]
            level = [child for folder in level for child in _folders(folder)]
        return self.root

    def _subfolders(self, folder: Path, known: Mapping[str, str], names: Sequence[str]) -> dict[str, Path]:
        """Subfolders that stand for some names, by these names."""
        candidates: dict[str, list[Path]] = {}
        for child in _folders(folder):
            if (name := known.get(normalise_name(child.name))) in names and name is not None:
                candidates.setdefault(name, []).append(child)
        subfolders = {}
        for name, paths in candidates.items():
            exact = [path for path in paths if path.name == name]
            if len(paths) > 1 and not exact:
                either = " or ".join(escaped(path.name) for path in paths)
                self.faults.append(f"{folder / name}: it may be {either}, expected only one of them")
            subfolders[name] = (exact or paths)[0]
            if not exact:
                self.notes.append(f"{escaped(str(paths[0]))} is read as {name}")
                self._check_name(paths[0])
        return subfolders

    def _check_name(self, folder: Path) -> None:
        """Report an unprintable name: an index stores paths, and rejects any that could be mistaken for another."""
        if not str(folder.relative_to(self.root)).isprintable():
            self.faults.append(f"{escaped(str(folder))}: {UNPRINTABLE}")

    def _files_by_number(self, cell: Path) -> dict[int, list[Path]]:
        """The image files of a cell, by the number in their names."""
        files: dict[int, list[Path]] = {}
        for path in _entries(cell):
            if (match := IMAGE_FILE.fullmatch(path.name)) and path.is_file():
                files.setdefault(int(match[1]), []).append(path)
        return files

    def _first_number(self, cells: Sequence[Mapping[int, object]]) -> int:
        """0 if every cell with images has number 0 and none has number `per_cell`; otherwise 1."""
        filled = [cell for cell in cells if cell]
        if not filled or not all(0 in cell and self.per_cell not in cell for cell in filled):
            return 1
        self.notes.append(f"{self.top}: the images are numbered from 0, so 0 is read as image 1")
        return 0

    def _select_file(self, key: ImageKey, number: int, paths: list[Path]) -> Path | None:
        """The file of an image. The documented name takes precedence; otherwise there must be a single candidate."""
        style, object_, index = key
        exact = [path for path in paths if path.name == f"{number}.jpg"]
        if len(paths) > 1 and not exact:
            image = self.root / style / object_ / f"{index}.jpg"
            either = " or ".join(path.name for path in paths)
            self.faults.append(f"{image}: it may be {either}, expected only one of them")
        if paths and not exact and not any(note.startswith(FILE_NAME_NOTE) for note in self.notes):
            self.notes.append(f"{FILE_NAME_NOTE} {paths[0].name} are read as {index}.jpg")
        return next(iter(exact or paths), None)

    @functools.cache  # noqa: B019 (it lives as long as the search)
    def _describe_folder(self, style: str, object_: str) -> str:
        if style not in self.folders:
            return f"{self.top.name} {_describe_content(self.top)}"
        if (style, object_) not in self.cells:
            return f"{self.folders[style].name} {_describe_content(self.folders[style])}"
        return f"its folder {_describe_content(self.cells[style, object_])}"

    def _describe_missing(self, key: ImageKey) -> str:
        style, object_, index = key
        path = self.root / style / object_ / f"{index}.jpg"
        return f"{path}: missing, {self._describe_folder(style, object_)}"


def _entries(folder: Path) -> Iterator[Path]:
    """Entries of a folder, sorted by name, without hidden files and litter."""
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(".") and path.name.lower() not in SYSTEM_FILES:
            yield path


def _folders(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_dir()]


def _describe_content(folder: Path) -> str:
    """Description of a folder's content."""
    names = [escaped(path.name) + _describe_kind(path) for path in _entries(folder)]
    if not names:
        return "is empty"
    shown, more = names[:MAX_SHOWN_NAMES], len(names) - MAX_SHOWN_NAMES
    if more > 0:
        return f"has {', '.join(shown)} and {more} more"
    return f"has {' and '.join([', '.join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)}"


def _describe_kind(path: Path) -> str:
    """Kind of an entry that is named like an image but is not a file, in parentheses; empty for other entries."""
    if not IMAGE_FILE.fullmatch(path.name) or path.is_file():
        return ""
    if path.is_symlink() and not path.exists():
        return f" (a link to {escaped(str(path.readlink()))}, which is missing)"
    return " (a folder)" if path.is_dir() else " (no regular file)"
