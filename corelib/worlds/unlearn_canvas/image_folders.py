"""Finding the benchmark's images in a folder STYLE/OBJECT/INDEX.jpg, as people really keep it.

Folders and files may be called otherwise, as long as there is one reading: other cases and blanks, the photos' folder
by its other names, other endings, leading zeros, numbers from 0, one folder more at the top. What was understood is
said, and so is what lies in the place of an image that is missing.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from corelib.files.placeholders import UNPRINTABLE
from corelib.files.printable import escaped
from corelib.models.compatibility import plain
from corelib.worlds.unlearn_canvas.image_index import Key

IMAGE_FILE = re.compile(r"0*(\d{1,9})\.(jpe?g|png)", re.IGNORECASE)
"""What a file of an image is called; what it is, its content says."""

LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
"""What other systems leave in folders, in lower case, besides hidden files."""

DEEPEST = 3
"""How many folders more there may be at the top."""

CALLED = "files called like"
"""How the note on names of files begins, which is made once."""

SHOWN = 3
"""How many names are shown of what lies in a folder."""


def names_of_styles(styles: Sequence[str], photo_style: str) -> dict[str, str]:
    """The styles by their plain names; the photos have several."""
    others = ("photo", "photos", "seed image", "seed images")
    return {plain(style): style for style in styles} | dict.fromkeys(others, photo_style)


@dataclass(frozen=True)
class FoundFiles:
    """The image files of a folder.

    Attributes:
        files: where each image lies, relative to the folder.
        faults: what has more than one reading, in words.
        notes: what is called otherwise than documented and was understood, in words.
        missing: what lies in the place of an image that is not there, in words.
    """

    files: Mapping[Key, str]
    faults: list[str]
    notes: list[str]
    missing: Callable[[Key], str]


def find_files(
    root: Path, styles: Sequence[str], objects: Sequence[str], per_cell: int, photo_style: str
) -> FoundFiles:
    """Look through a folder for the images of some styles and objects, numbered 1 to `per_cell`."""
    return _Search(root, styles, objects, per_cell, photo_style).found()


@dataclass(eq=False)
class _Search:
    """One look through a folder."""

    root: Path
    styles: Sequence[str]
    objects: Sequence[str]
    per_cell: int
    photo_style: str
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def found(self) -> FoundFiles:
        self.top = self._top()
        self.folders = self._subfolders(self.top, names_of_styles(self.styles, self.photo_style), self.styles)
        known = {plain(object_): object_ for object_ in self.objects}
        self.cells = {
            (style, object_): cell
            for style, folder in self.folders.items()
            for object_, cell in self._subfolders(folder, known, self.objects).items()
        }
        numbered = {cell: self._numbered(folder) for cell, folder in self.cells.items()}
        first = self._first_number(list(numbered.values()))
        files = {}
        for (style, object_), by_number in numbered.items():
            for number in range(first, first + self.per_cell):
                key = (style, object_, number - first + 1)
                if path := self._one_of(key, number, by_number.get(number, [])):
                    files[key] = path.relative_to(self.root).as_posix()
        return FoundFiles(files, self.faults, self.notes, self._missing)

    def _top(self) -> Path:
        """The folder with the styles: the root, or the one folder below it that has some."""
        level = [self.root]
        known = names_of_styles(self.styles, self.photo_style)
        for _ in range(DEEPEST + 1):
            having = [folder for folder in level if any(plain(below.name) in known for below in _folders(folder))]
            if len(having) > 1:
                places = " and in ".join(escaped(str(folder.relative_to(self.root))) for folder in having[:SHOWN])
                self.faults.append(f"{self.root}: styles are in {places}, expected one folder of them")
            if having:
                if having[0] != self.root:
                    top = escaped(str(having[0].relative_to(self.root)))
                    self.notes.append(f"{self.root}: the styles are in its folder {top}")
                    self._check_name(having[0])
                return having[0]
            level = [below for folder in level for below in _folders(folder)]
        return self.root

    def _subfolders(self, folder: Path, known: Mapping[str, str], names: Sequence[str]) -> dict[str, Path]:
        """The folders of some names, each by the name that it stands for."""
        candidates: dict[str, list[Path]] = {}
        for below in _folders(folder):
            if (name := known.get(plain(below.name))) in names and name is not None:
                candidates.setdefault(name, []).append(below)
        found = {}
        for name, paths in candidates.items():
            exact = [path for path in paths if path.name == name]
            if len(paths) > 1 and not exact:
                either = " or ".join(escaped(path.name) for path in paths)
                self.faults.append(f"{folder / name}: it may be {either}, expected one of them")
            found[name] = (exact or paths)[0]
            if not exact:
                self.notes.append(f"{escaped(str(paths[0]))} is taken for {name}")
                self._check_name(paths[0])
        return found

    def _check_name(self, folder: Path) -> None:
        """An index names each image by its path, and reads no path that could be mistaken for another."""
        if not str(folder.relative_to(self.root)).isprintable():
            self.faults.append(f"{escaped(str(folder))}: {UNPRINTABLE}")

    def _numbered(self, cell: Path) -> dict[int, list[Path]]:
        """The image files of a cell by the number in their name."""
        found: dict[int, list[Path]] = {}
        for path in _entries(cell):
            if (named := IMAGE_FILE.fullmatch(path.name)) and path.is_file():
                found.setdefault(int(named[1]), []).append(path)
        return found

    def _first_number(self, cells: Sequence[Mapping[int, object]]) -> int:
        """0 if every cell has an image 0 and none the last one from 1 on; else 1."""
        filled = [cell for cell in cells if cell]
        if not filled or not all(0 in cell and self.per_cell not in cell for cell in filled):
            return 1
        self.notes.append(f"{self.top}: the images are numbered from 0, so 0 is taken for image 1")
        return 0

    def _one_of(self, key: Key, number: int, paths: list[Path]) -> Path | None:
        """The file of an image. The documented name is certain; of others there must be one."""
        style, object_, index = key
        exact = [path for path in paths if path.name == f"{number}.jpg"]
        if len(paths) > 1 and not exact:
            place = self.root / style / object_ / f"{index}.jpg"
            either = " or ".join(path.name for path in paths)
            self.faults.append(f"{place}: it may be {either}, expected one of them")
        if paths and not exact and not any(note.startswith(CALLED) for note in self.notes):
            self.notes.append(f"{CALLED} {paths[0].name} are taken for those called {index}.jpg")
        return next(iter(exact or paths), None)

    @functools.cache  # noqa: B019 (it lives as long as the search)
    def _in_place_of(self, style: str, object_: str) -> str:
        if style not in self.folders:
            return f"{self.top.name} {_contents(self.top)}"
        if (style, object_) not in self.cells:
            return f"{self.folders[style].name} {_contents(self.folders[style])}"
        return f"its folder {_contents(self.cells[style, object_])}"

    def _missing(self, key: Key) -> str:
        return self._in_place_of(key[0], key[1])


def _entries(folder: Path) -> Iterator[Path]:
    """What lies in a folder, in the order of the names, without what systems leave there."""
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(".") and path.name.lower() not in LITTER:
            yield path


def _folders(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_dir()]


def _contents(folder: Path) -> str:
    """What a folder has, in words."""
    names = [escaped(path.name) + _of_what_kind(path) for path in _entries(folder)]
    if not names:
        return "is empty"
    shown, more = names[:SHOWN], len(names) - SHOWN
    if more > 0:
        return f"has {', '.join(shown)} and {more} more"
    return f"has {' and '.join([', '.join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)}"


def _of_what_kind(path: Path) -> str:
    """Of what is called like an image and is no file, what it is, in words."""
    if not IMAGE_FILE.fullmatch(path.name) or path.is_file():
        return ""
    if path.is_symlink() and not path.exists():
        return f" (a link to {escaped(str(path.readlink()))}, which is missing)"
    return " (a folder)" if path.is_dir() else " (no regular file)"
