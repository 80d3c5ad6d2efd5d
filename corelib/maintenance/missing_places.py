"""Paths of a study at which there is nothing: the key that names each, and what is there instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path

from corelib.errors import listed
from corelib.files.paths import nearest_existing

INDEX = "image_index"
"""The asset that `make assets` writes itself."""


def missing_place(key: str, place: str) -> str:
    """A clause about a path that does not exist: its key, and the content of the nearest folder that exists."""
    path = Path(place)
    if path.is_symlink():
        return f"{key} is {place}, a link to {path.readlink()}, which is missing"
    return f"{key} is {place}, which is missing ({_surroundings(path)})"


def _surroundings(path: Path) -> str:
    """The folder to which a path is relative, and the content of the nearest folder of the path that exists."""
    relative_to = "" if path.is_absolute() else f"in {Path.cwd()}"
    nearest = nearest_existing(path)
    if not nearest.is_dir():
        return "; ".join(part for part in (relative_to, f"{nearest} is a file") if part)
    wanted = path.absolute().relative_to(nearest).parts[0]
    names = sorted(entry.name for entry in nearest.iterdir() if not entry.name.startswith("."))
    near = difflib.get_close_matches(wanted, names, n=3)
    content = listed([*near, *(name for name in names if name not in near)])
    if not path.is_absolute() and nearest == Path.cwd():
        return f"{relative_to}, which has {content or 'no files'}"
    shown = nearest if path.is_absolute() else nearest.relative_to(Path.cwd())
    return "; ".join(part for part in (relative_to, f"{shown} has {content or 'no files'}") if part)


def downloaded_places(configuration: Path) -> dict[str, str]:
    """The path to which `make assets` downloads an asset, by its key; the sources are in a configuration folder."""
    from corelib.worlds.assets.download import load_sources  # imported here: most studies need no Hub

    return {f"world.assets.{name}": source.place for name, source in load_sources(configuration).items()}


def missing_places(keys: Mapping[str, str], downloaded: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each path of a study at which there is nothing although `make assets` downloads nothing to it.

    With each path comes the clause about it.

    Args:
        keys: the path at each key of the study.
        downloaded: the path to which the asset of a key is downloaded, for those that have a source.
    """
    for key, place in keys.items():
        is_written = key == f"world.assets.{INDEX}" or downloaded.get(key) == place.rstrip("/")
        if not is_written and not Path(place).exists():
            yield place, missing_place(key, place)
