"""JSON files that carry a hash of their own content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corelib.errors import ArtefactError
from corelib.files.hashing import sha256_of_text
from corelib.files.json_files import as_json, read_json


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Some content with its own hash: of a file that nothing else vouches for, and whose numbers are results."""
    return {**content, "seal": _seal_of(content)}


def has_its_seal(content: Any) -> bool:
    """Whether content is as it was when it was sealed."""
    return isinstance(content, dict) and content.get("seal") == _seal_of(content)


def read_sealed(path: Path) -> dict[str, Any]:
    """The content of a JSON file that carries its own seal.

    Raises `ArtefactError` if it is missing, unreadable or not as it was written.
    """
    content = read_json(path)
    if not has_its_seal(content):
        raise ArtefactError(
            f"{path}: its content does not have the seal it was written with; delete it and ask for the target again."
        )
    return dict(content)


def is_as_written(path: Path, content: Any) -> bool:
    """Whether a JSON file has the very bytes with which the sealed content that was read from it was written.

    A seal is taken over values, and one value may be spelled in two ways that differ by a bit: 1e-05 and 1E-05.
    """
    return has_its_seal(content) and path.read_bytes() == as_json(content).encode("utf-8", "surrogatepass")


def _seal_of(content: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in content.items() if key != "seal"}
    as_read = json.loads(json.dumps(kept))
    return sha256_of_text(json.dumps(as_read, sort_keys=True, ensure_ascii=True))
