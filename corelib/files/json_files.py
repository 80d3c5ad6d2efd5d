"""JSON files: written atomically with sorted keys, and read within a size limit."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from corelib.errors import ArtefactError
from corelib.files.atomic import folder_instead_of_file_error, write_text
from corelib.files.paths import read_bytes

MAX_JSON_BYTES = 32 * 2**20
"""Maximum size of a JSON file in bytes. The largest of a study has two million. Once parsed, a file takes up to thirty
times as much memory."""


def write_json(path: Path, value: Any) -> None:
    """Write `value` atomically as indented JSON with sorted keys."""
    write_text(path, to_json(value))


def to_json(value: Any) -> str:
    """The text that `write_json` writes."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read_json(path: Path, record: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Read a JSON file; `record`, if given, converts each of its objects from a dictionary.

    Raises `ArtefactError` if the file is missing, too large, or not JSON.
    """
    try:
        content = read_bytes(path, MAX_JSON_BYTES)
    except FileNotFoundError:
        raise ArtefactError(f"{path}: the file is missing; ask for the target again to rebuild it.") from None
    except IsADirectoryError:
        raise folder_instead_of_file_error(path) from None
    except OSError as error:
        raise ArtefactError(f"{path}: not readable ({error.strerror or error}), expected a JSON file.") from None
    try:
        return json.loads(content.decode("utf-8"), object_hook=record)
    except (ValueError, RecursionError) as error:
        raise ArtefactError(
            f"{path}: not readable as JSON ({error}); delete it and ask for the target again."
        ) from None


class JsonRecord(dict[str, Any]):
    """An object in a JSON file. A missing key raises `ArtefactError` with the name of the file."""

    def __init__(self, content: Mapping[str, Any], source: Path) -> None:
        super().__init__(content)
        self.source = source

    def __missing__(self, key: str) -> Any:
        raise ArtefactError(f"{self.source}: it lacks `{key}`; delete it and ask for the target again.")
