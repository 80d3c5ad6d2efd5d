"""The destination of an export."""

from __future__ import annotations

from pathlib import Path

from corelib.errors import ConfigurationError


def check_is_new(folder: Path) -> None:
    """Raise `ConfigurationError` if the destination of an export exists: an export replaces nothing."""
    if folder.exists():
        raise ConfigurationError(f"{folder}: it already exists, expected the name of a new folder.")
