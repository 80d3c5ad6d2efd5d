"""The files of a configuration: the paper's study, all other studies, and the files that belong to the workflow.

A folder of the user's own may have a configuration beside that of the workflow (docs/module.md). Functions of this
package take a configuration folder. For `OWN`, they read the user's studies before those of the workflow.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from corelib.files.yaml_files import UnreadableYaml, read_yaml
from corelib.runs.layout import REPOSITORY
from corelib.study.schema import NAME, Study

PAPER = "paper"
"""The study of `config/config.yaml` itself; its tables are in `results/`, not in `results/paper/`."""

SHIPPED = REPOSITORY / "config"
"""The configuration folder of the workflow."""

OWN = Path("config")
"""The configuration folder of a working directory other than the workflow's own folder."""


def configuration_folder() -> Path:
    """The configuration folder of the working directory, `OWN` if it has studies and `SHIPPED` otherwise."""
    if OWN.resolve() == SHIPPED:
        return SHIPPED
    return OWN if (OWN / "studies").is_dir() or _has_study(OWN / "config.yaml") else SHIPPED


def workflow_folder(folder: Path) -> Path:
    """The folder of the files that belong to the workflow, such as the paper's numbers and the shipped models."""
    return SHIPPED if folder == OWN else folder


PRESETS = "presets"
"""The folder of presets within the configuration's."""


def study_file(name: str, folder: Path) -> Path:
    """The file of a study; for a study that does not exist, the file that it would have."""
    if name == PAPER:
        own = folder / "config.yaml"
        return own if folder != OWN or _has_study(own) else SHIPPED / own.name
    own = folder / "studies" / f"{name}.yaml"
    shipped = workflow_folder(folder) / "studies" / own.name
    return shipped if os.path.exists(shipped) and not os.path.exists(own) else own  # a name may be too long for a path


def preset_file(name: str, folder: Path) -> Path:
    """The file of a preset: settings on which studies are built, without a world's images or a table of its own."""
    return workflow_folder(folder) / PRESETS / f"{name}.yaml"


def preset_names(folder: Path) -> list[str]:
    """The names of all presets."""
    return sorted(file.stem for file in (workflow_folder(folder) / PRESETS).glob("*.yaml"))


def study_names(folder: Path) -> list[str]:
    """The names of all studies; they become parts of paths."""
    folders = {folder, workflow_folder(folder)}
    stems = sorted({file.stem for one in folders for file in (one / "studies").glob("*.yaml")})
    return [PAPER, *(name for name in stems if NAME.fullmatch(name))]


def misnamed_study_file(name: str, folder: Path) -> Path | None:
    """The file of a study that ends in .yml, if there is no study of that name."""
    if name in study_names(folder):
        return None
    return next((file for file in (folder / "studies").glob("*.yml") if file.stem == name), None)


def misplaced_study_file(name: str, folder: Path, given: Path = Path()) -> tuple[Path, Path] | None:
    """The file of a study that is not in the folder of studies, and the path that it should have.

    The file may be beside that folder or below it, in the working directory, or beside the path `given`.
    """
    if not NAME.fullmatch(name) or name in (*study_names(folder), "config"):  # config.yaml is the paper's study
        return None
    folders = [folder, *sorted((folder / "studies").glob("*/")), OWN, Path(), Path("studies"), given.parent]
    for place in folders:
        for file in (place / f"{name}.yaml", place / f"{name}.yml"):
            if os.path.isfile(file) and _is_overlay(file):  # a name may be too long for a path
                own = OWN if folder in (OWN, SHIPPED) and folder not in file.parents else folder
                return file, own / "studies" / f"{name}.yaml"
    return None


def _is_overlay(file: Path) -> bool:
    """Whether a file has sections of a study and nothing else, or is not readable as YAML."""
    try:
        content = read_yaml(file)
    except UnreadableYaml:
        return True
    return isinstance(content, Mapping) and {"base", *Study.model_fields} >= content.keys() != set()


def is_study(content: object) -> bool:
    """Whether the content of a file is a whole study, and not the configuration of another workflow."""
    return isinstance(content, Mapping) and {"world", "methods"} <= content.keys()


def _has_study(file: Path) -> bool:
    """Whether a file has a whole study; so does one that is not readable but has `methods:`, to report its error."""
    if not file.is_file():
        return False
    try:
        return is_study(read_yaml(file))
    except UnreadableYaml:
        return "\nmethods:" in file.read_text(encoding="utf-8", errors="replace")
