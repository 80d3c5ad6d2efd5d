"""Records: typed JSON files that carry a seal, the sha256 of their own content."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from corelib.errors import ArtefactError
from corelib.files.hashing import sha256_of_text
from corelib.files.json_files import read_json, to_json, write_json

MAX_FAULT = 160
"""Maximum number of characters of `first_validation_error`."""


class SealedRecord(BaseModel):
    """A record that is stored as a JSON file with a seal.

    Records are immutable and strict. An unknown key is an error: the seal covers every key, so a record with a key
    that no reader knows was written by other code. Dictionaries within a record must not be changed.

    Attributes:
        KIND: noun phrase that names the record in errors.
        seal: sha256 of the other fields in canonical JSON.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    KIND: ClassVar[str]

    seal: str

    @classmethod
    def sealed(cls, **fields: Any) -> Self:
        """A record with these fields and their seal. Raises `pydantic.ValidationError` if a field is malformed."""
        record = cls(**fields, seal="")
        seal = seal_of(json.loads(json.dumps(record.content)))
        return record.model_copy(update={"seal": seal})

    @property
    def content(self) -> dict[str, Any]:
        """The JSON object that is stored: all fields that are set."""
        return _plain(self)


Kind = TypeVar("Kind", bound=SealedRecord)


def read_record(path: Path, kind: type[Kind]) -> Kind:
    """Read a record. Raises `ArtefactError` as `read_json` and `parse_record` do."""
    return parse_record(read_json(path), kind, path)


def parse_record(content: Any, kind: type[Kind], path: Path, **given: Any) -> Kind:
    """The record in the content of a JSON file.

    Args:
        content: content of the file.
        kind: type of the record.
        path: path of the file, for errors.
        given: fields that are not stored in the file.

    Raises `ArtefactError` if a key is missing, unknown or malformed, or if the seal does not match the content.
    """
    try:
        if not isinstance(content, dict) or content.keys() & given.keys():
            raise ArtefactError(f"{path}: not a {kind.KIND}; delete it and ask for the target again.")
        record = kind.model_validate({**content, **given})
    except ValidationError as error:
        raise ArtefactError(
            f"{path}: not a {kind.KIND} ({first_validation_error(error)}); delete it and ask for the target again."
        ) from None
    if not has_its_seal(content):
        raise ArtefactError(
            f"{path}: its seal does not match its content; it was damaged or edited: delete it and ask for the target "
            "again."
        )
    return record


def read_or_none(reader: Callable[[Path], Kind], path: Path) -> Kind | None:
    """The record that `reader` returns; None if the file is missing or damaged."""
    try:
        return reader(path)
    except ArtefactError:
        return None


def write_record(path: Path, record: SealedRecord) -> None:
    """Write a record atomically."""
    write_json(path, record.content)


def bytes_match(path: Path, record: SealedRecord) -> bool:
    """Whether a file has exactly the bytes that `write_record` writes for the record read from it.

    A seal covers values, and two spellings of one value may differ in a single bit: 1e-05 and 1E-05.
    """
    try:
        return path.read_bytes() == to_json(record.content).encode("utf-8", "surrogatepass")
    except (OSError, RecursionError):
        return False


def first_validation_error(error: ValidationError) -> str:
    """The key and the message of the first validation error, on one line of at most `MAX_FAULT` characters."""
    fault = error.errors(include_url=False)[0]
    key, message = ".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")
    text = f"`{key}`: {message}" if key else message
    return "".join(character if character.isprintable() else "?" for character in text)[:MAX_FAULT]


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the seal of its content."""
    return {**content, "seal": seal_of(json.loads(json.dumps({**content, "seal": ""})))}


def has_its_seal(content: Any) -> bool:
    """Whether the seal of an object that was read from JSON matches its content."""
    return isinstance(content, dict) and content.get("seal") == seal_of(content)


def seal_of(content: Mapping[str, Any]) -> str:
    """The seal of an object that was read from JSON: the sha256 of all its other values."""
    covered = {key: value for key, value in content.items() if key != "seal"}
    return sha256_of_text(json.dumps(covered, sort_keys=True, ensure_ascii=True))


def _plain(value: Any) -> Any:
    """The JSON value of a field. A record becomes a dictionary of the fields that are stored and set."""
    if isinstance(value, BaseModel):
        stored = [name for name, field in type(value).model_fields.items() if not field.exclude]
        return {name: _plain(getattr(value, name)) for name in stored if name in value.model_fields_set}
    return [_plain(entry) for entry in value] if isinstance(value, list) else value
