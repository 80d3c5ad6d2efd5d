"""Checks that assets exist and are locked, without reading them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from corelib.settings.unlearn_canvas import AdoptionStage

MAKE_ASSETS_ADVICE = "; run `make assets` to fetch missing assets and to lock existing ones"
"""End of the description of a fault that `make assets` repairs; a list of such faults has it only once."""


def missing_assets(settings: AdoptionStage, paths: Mapping[str, Path]) -> Iterator[str]:
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
