"""The files of studies: `config.yaml` for the paper's study, and `studies/NAME.yaml` for all others."""

from __future__ import annotations

from pathlib import Path

from corelib.study.schema import NAME

PAPER = "paper"
"""The study of `config/config.yaml` itself; its tables are in `results/`, not in `results/paper/`."""


def study_file(name: str, folder: Path) -> Path:
    """The file of a study."""
    return folder / "config.yaml" if name == PAPER else folder / "studies" / f"{name}.yaml"


def study_names(folder: Path) -> list[str]:
    """The names of all studies; they become parts of paths."""
    stems = sorted(file.stem for file in (folder / "studies").glob("*.yaml"))
    return [PAPER, *(name for name in stems if NAME.fullmatch(name))]


def misnamed_study_file(name: str, folder: Path) -> Path | None:
    """The file of a study that ends in .yml, if there is no study of that name."""
    if name in study_names(folder):
        return None
    return next((file for file in (folder / "studies").glob("*.yml") if file.stem == name), None)
