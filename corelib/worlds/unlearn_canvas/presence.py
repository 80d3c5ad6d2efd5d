"""Whether assets are there and locked at all, which is seen without reading them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from corelib.settings.unlearn_canvas import AdoptionStage

ADVICE = "; `make assets` fetches what is missing, and locks what is there"
"""What ends the words for a fault that this mends; who names several of them says it once."""


def absences(settings: AdoptionStage, paths: Mapping[str, Path]) -> Iterator[str]:
    """What is not there, or not locked, in words.

    Args:
        settings: which assets are needed.
        paths: where each of them lies, by its name.
    """
    for name, locked in settings.sha256.items():
        if not paths[name].exists():
            yield f"{paths[name]} is missing{ADVICE}"
        elif locked is None:
            yield f"{paths[name]} is not locked yet, so nobody knows whether it is what it should be{ADVICE}"
