"""Checks that assets exist and are locked, without reading them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol


class Locked(Protocol):
    """Settings with the sha256 of files of the user's."""

    @property
    def sha256(self) -> Mapping[str, str | None]:
        """The sha256 of each file or folder by name; None until it is locked."""


MAKE_ASSETS_ADVICE = "; run `make assets` to fetch missing assets and to lock existing ones"
"""End of the description of a fault that `make assets` repairs; a list of such faults has it only once."""


def missing_assets(settings: Locked, paths: Mapping[str, Path]) -> Iterator[str]:
    """Yield a description of each asset that is missing or not locked.

    Args:
        settings: the assets that are needed.
        paths: path of each asset, by its name.
    """
    for name, locked in settings.sha256.items():
        if not paths[name].exists():
            yield f"{paths[name]} is missing{MAKE_ASSETS_ADVICE}"
        elif locked is None:
            yield f"{paths[name]} is not locked yet, so its content cannot be verified{MAKE_ASSETS_ADVICE}"
