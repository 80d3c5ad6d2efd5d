"""JSON files: written whole with sorted keys, and read within bounds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from corelib.errors import ArtefactError
from corelib.files.atomic import folder_in_the_way, write_text
from corelib.files.paths import content_of

LARGEST_JSON = 32 * 2**20
"""Bytes of a JSON file. The largest of a study has two million; parsed it takes up to thirty times as much memory."""


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, whole or not at all."""
    write_text(path, as_json(value))


def as_json(value: Any) -> str:
    """The text that `write_json` writes."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read_json(path: Path, record: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The value in a JSON file, its objects as dictionaries or as `record` makes them of those.

    Raises `ArtefactError` if it is missing, too large, or not JSON.
    """
    try:
        content = content_of(path, LARGEST_JSON)
    except FileNotFoundError:
        raise ArtefactError(f"{path}: the file is missing; ask for the target again to rebuild it.") from None
    except IsADirectoryError:
        raise folder_in_the_way(path) from None
    except OSError as error:
        raise ArtefactError(f"{path}: not readable ({error.strerror or error}), expected a JSON file.") from None
    try:
        return json.loads(content.decode("utf-8"), object_hook=record)
    except (ValueError, RecursionError) as error:
        raise ArtefactError(
            f"{path}: not readable as JSON ({error}); delete it and ask for the target again."
        ) from None


class Record(dict[str, Any]):
    """What a JSON file says; a key that is missing is an `ArtefactError` that names the file."""

    def __init__(self, content: Mapping[str, Any], source: Path) -> None:
        super().__init__(content)
        self.source = source

    def __missing__(self, key: str) -> Any:
        raise ArtefactError(f"{self.source}: it lacks `{key}`; delete it and ask for the target again.")
