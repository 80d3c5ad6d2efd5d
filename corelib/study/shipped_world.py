"""The record of the trained world that a configuration folder ships: loading and validation.

`pretrained/world.json` records the sha256 of the shipped models, the facts about them that later stages read, the
leaves of the configuration that they were trained with, the digest of the code that drew the images, and the provenance
of each training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from corelib.errors import ArtefactError, ConfigurationError
from corelib.files.json_files import read_json
from corelib.files.text import printable
from corelib.runs.fingerprint import digest_of_modules
from corelib.study.indentation import Key
from corelib.study.overlays import error_for_key
from corelib.study.schema import Study
from corelib.study.wording import to_yaml


def leaves_of_world(study: Study) -> dict[str, Any]:
    """Every leaf on which a trained world depends, by its key: the world itself, and the wording of the captions."""
    sections = study.model_dump(mode="json", include={"world", "prompts"})
    return {key: leaf for key, leaf in _flat(sections, ()) if key != "world.pretrained"}


def _flat(section: Mapping[str, Any], key: Key) -> Iterator[tuple[str, Any]]:
    for name, leaf in section.items():
        if isinstance(leaf, dict):
            yield from _flat(leaf, (*key, name))
        else:
            yield ".".join((*key, name)), leaf


def check_against_shipped(study: Study, folder: Path, origins: Mapping[Key, Path], file: Path) -> None:
    """Raise `ConfigurationError` for the first leaf that differs from the one the shipped world was trained with."""
    shipped = load_shipped(folder)["leaves"]
    for key, leaf in leaves_of_world(study).items():
        trained = shipped.get(key)
        if leaf != trained:
            raise error_for_key(
                tuple(key.split(".")),
                f"{_difference(key, leaf, trained)}, with which the shipped world was trained "
                "(or world.pretrained: false, to train another one)",
                origins,
                file,
            )


def _difference(key: str, actual: object, expected: object) -> str:
    """The difference in words; for two long lists, the first entry that differs."""
    if isinstance(actual, list) and isinstance(expected, list) and len(actual) == len(expected) > 3:
        index = next(index for index, pair in enumerate(zip(actual, expected, strict=True)) if pair[0] != pair[1])
        return f"{key} has {actual[index]!r} as entry {index + 1}, expected {expected[index]!r}"
    if isinstance(actual, list) and isinstance(expected, list) and len(expected) > 3:
        return f"{key} has {len(actual)} entries, expected the {len(expected)}"
    return f"{key} is {to_yaml(actual)}, expected {to_yaml(expected)}"


RECORD_FILE = Path("pretrained/world.json")
"""The path of the record below the configuration folder."""

DRAWING_MODULES = ("corelib.randomness", "corelib.worlds.miniature.drawing")
"""The modules that draw a miniature's images."""


class _Part(BaseModel):
    """A part of the record; unknown keys are allowed."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Classifier(_Part):
    architecture: str
    classes: list[str]
    resolution: int
    sha256: str
    weights: str


class _Classifiers(_Part):
    style: _Classifier
    object: _Classifier


class _Facts(_Part):
    pipeline: str
    unet: str
    parts: dict[str, str]
    classifiers: _Classifiers


class _Record(_Part):
    files: dict[str, str] = Field(min_length=1)
    facts: _Facts
    leaves: dict[str, Any]
    drawing: str
    provenance: dict[str, Any]


def load_shipped(folder: Path) -> dict[str, Any]:
    """Load the record of a configuration folder: `files`, `facts`, `leaves`, `drawing`, `provenance`.

    Raises `ConfigurationError` if the record is missing, is unreadable, or lacks a key that plans or stages read.
    """
    file = folder / RECORD_FILE
    if not file.exists():
        raise _error(file, "it is missing")
    try:
        record = read_json(file)
    except (ArtefactError, OSError):
        raise _error(file, "not readable as JSON") from None
    if not isinstance(record, dict):
        raise _error(file, "not the record of a trained world")
    try:
        validated = _Record.model_validate(record)
    except ValidationError as error:
        raise _error(file, f"not the record of a trained world: {_first_fault(error, record)}") from None
    for name, sha256 in validated.files.items():
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise _error(file, f"files.{name} is {to_yaml(sha256)}, which is not a sha256")
    return dict(record)


def digest_of_drawing() -> str:
    """The digest of the code that draws a miniature's images."""
    return digest_of_modules(*DRAWING_MODULES)


def _first_fault(error: ValidationError, record: dict[str, Any]) -> str:
    """The key and the value of the first error, in words."""
    fault = error.errors()[0]
    value: Any = record
    for name in fault["loc"]:
        if not isinstance(value, dict) or name not in value:
            return f"{_key(fault['loc'])} is missing"
        value = value[name]
    return f"{_key(fault['loc'])} is {to_yaml(value)}"


def _key(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location))


def _error(file: Path, fault: str) -> ConfigurationError:
    sentence = f"{file}: {fault}; restore the file that the repository ships, or set world.pretrained: false."
    return ConfigurationError(printable(sentence))
