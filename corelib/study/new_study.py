"""The file of a new study: a base, and the leaves that differ from it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from corelib.errors import ConfigurationError
from corelib.files.yaml_files import UnreadableYaml, parse_yaml
from corelib.study.loading import load_study
from corelib.study.schema import NAME, Study
from corelib.study.study_files import PAPER, misnamed_study_file, study_file, study_names
from corelib.study.wording import error_in

ASSIGNMENT = "methods.core.learning_rate=2e-5"
"""An example of an assignment."""

_PLAIN = re.compile(r"[\w./+-]+( [\w./+-]+)*")
"""A text that needs no quotes within braces."""


def study_text(base: str, assignments: Sequence[str]) -> str:
    """The text of a study's file.

    Args:
        base: the study on which it is built.
        assignments: leaves as `KEY=VALUE`, such as `methods.core.learning_rate=2e-5`; values are written as they are.

    Raises `ConfigurationError` for an assignment without key or value, and for two of one key.
    """
    tree: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        parts = key.strip().split(".")
        if not equals or not value.strip() or not all(parts) or parts[0] == "base":
            raise ConfigurationError(f"--set {assignment}: expected KEY=VALUE, such as {ASSIGNMENT}.")
        section = tree
        for part in parts[:-1]:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise ConfigurationError(f"--set {assignment}: a part of {key} is set as well, expected one of them.")
        if parts[-1] in section:
            raise ConfigurationError(f"--set {assignment}: {key} is set twice, expected once.")
        section[parts[-1]] = _value(value.strip(), assignment)
    lines = [f"{_key(name)}: {_flow(entry)}" for name, entry in tree.items()]
    return "\n".join([*([] if base == PAPER else [f"base: {base}"]), *lines, ""])


def write_new_study(name: str, text: str, folder: Path) -> tuple[Path, Study]:
    """Check a study and write its file, which must not exist.

    Raises `ConfigurationError` if the name is not that of a study or is taken, or if the study is not valid; nothing is
    written then.
    """
    file = study_file(name, folder)
    if not NAME.fullmatch(name) or name == PAPER:
        raise ConfigurationError(f"{name}: expected a name of letters, digits, `_` and `-`, other than {PAPER!r}.")
    if name in study_names(folder) or misnamed_study_file(name, folder) is not None:
        raise error_in(
            file, "it exists already, expected the name of a new study; edit the file, or choose another name"
        )
    study = load_study(name, folder, text)
    with file.open("x", encoding="utf-8") as stream:
        stream.write(text)
    return file, study


def assignments_of(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The leaves of nested values as assignments, such as those of Snakemake's `--config`."""
    found: list[str] = []
    for name, value in values.items():
        if isinstance(value, dict) and value:
            found += assignments_of(value, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}={value if isinstance(value, str) else json.dumps(value)}")
    return found


def _value(text: str, assignment: str) -> str:
    """A value as it is written in a file: as the user wrote it, in quotes if it is a text that needs them."""
    if text[0] in "\"'[{" or not any(mark in text for mark in (": ", " #")):
        try:
            value = parse_yaml(text)
        except UnreadableYaml as error:
            raise ConfigurationError(f"--set {assignment}: not readable as YAML: {error}.") from None
        if text[0] in "\"'[{" or _PLAIN.fullmatch(text) or not isinstance(value, str):
            return text
    return json.dumps(text, ensure_ascii=False)


def _flow(entry: Any) -> str:
    if isinstance(entry, dict):
        return f"{{{', '.join(f'{_key(name)}: {_flow(value)}' for name, value in entry.items())}}}"
    return str(entry)


def _key(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else json.dumps(name, ensure_ascii=False)
