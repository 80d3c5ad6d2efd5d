"""The record of the trained world that a configuration folder ships: read, and checked as a whole.

`pretrained/world.json` says of the shipped models their sha256, what later stages read of them, the leaves of the
configuration that they were trained with, the code that drew the images, and the provenance of each training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from corelib.addresses import digest_of_modules
from corelib.artefacts import read_json
from corelib.configuration import shown
from corelib.errors import ArtefactError, ConfigurationError

RECORD = Path("pretrained/world.json")
"""Below the configuration folder."""

DRAWING = ("corelib.randomness", "corelib.worlds.rendering")
"""The modules that decide how a miniature's images look."""


class _Part(BaseModel):
    """A part of the record; keys that nobody reads are free."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Classifier(_Part):
    architecture: str
    classes: list[str]
    options: dict[str, Any]
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
    """The record of the trained world in a configuration folder: `files`, `facts`, `leaves`, `drawing`, `provenance`.

    Raises `ConfigurationError` if it is missing, unreadable, or lacks something that plans and stages read.
    """
    file = folder / RECORD
    if not file.exists():
        raise _error(file, "it is missing")
    try:
        record = read_json(file)
    except (ArtefactError, OSError):
        raise _error(file, "not readable as JSON") from None
    if not isinstance(record, dict):
        raise _error(file, "no record of a trained world")
    try:
        said = _Record.model_validate(record)
    except ValidationError as error:
        raise _error(file, f"no record of a trained world, {_first_fault(error, record)}") from None
    for name, sha256 in said.files.items():
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise _error(file, f"files.{name} is {shown(sha256)}, which is no sha256")
    return dict(record)


def digest_of_drawing() -> str:
    """The digest of the code that decides how a miniature's images look."""
    return digest_of_modules(*DRAWING)


def _first_fault(error: ValidationError, record: dict[str, Any]) -> str:
    """The key and the value of the first fault, in words."""
    fault = error.errors()[0]
    value: Any = record
    for name in fault["loc"]:
        if not isinstance(value, dict) or name not in value:
            return f"{_key(fault['loc'])} is missing"
        value = value[name]
    return f"{_key(fault['loc'])} is {shown(value)}"


def _key(place: tuple[int | str, ...]) -> str:
    return ".".join(map(str, place))


def _error(file: Path, what: str) -> ConfigurationError:
    said = f"{file}: {what}, expected it as the repository ships it (or world.pretrained: false)."
    return ConfigurationError("".join(mark if mark.isprintable() else "?" for mark in said))
