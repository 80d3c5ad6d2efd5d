"""The files of studies: `config.yaml` for the paper's study, and `studies/NAME.yaml` for all others."""

from __future__ import annotations

from pathlib import Path

from corelib.study.schema import NAME

PAPER = "paper"
"""The study of `config/config.yaml` itself; its tables are in `results/`, not in `results/paper/`."""


PRESETS = "presets"
"""The folder of presets within the configuration's."""


def study_file(name: str, folder: Path) -> Path:
    """The file of a study."""
    return folder / "config.yaml" if name == PAPER else folder / "studies" / f"{name}.yaml"


def preset_file(name: str, folder: Path) -> Path:
    """The file of a preset: settings on which studies are built, without a world's images or a table of its own."""
    return folder / PRESETS / f"{name}.yaml"


def preset_names(folder: Path) -> list[str]:
    """The names of all presets."""
    return sorted(file.stem for file in (folder / PRESETS).glob("*.yaml"))


def study_names(folder: Path) -> list[str]:
    """The names of all studies; they become parts of paths."""
    stems = sorted(file.stem for file in (folder / "studies").glob("*.yaml"))
    return [PAPER, *(name for name in stems if NAME.fullmatch(name))]
