"""The pinned versions of packages, and which installed ones differ from them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator
from pathlib import Path

from corelib.runs.fingerprint import NUMERICAL_PACKAGES

PINS, PINS_OF_CUDA_12 = Path("envs/requirements.txt"), Path("envs/requirements-cuda12.txt")
"""Below the repository; those of the second take the place of those of the first by the same names."""


def pins(repository: Path) -> dict[str, str]:
    """The version of every package that the environment is made of: with CUDA 13, or with 12 if torch is that one's."""
    known, others = _pins(repository / PINS), _pins(repository / PINS_OF_CUDA_12)
    return known | others if dict(_installed(["torch"])) == {"torch": others["torch"]} else known


def _pins(file: Path) -> dict[str, str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    pairs = (line.split("#")[0].strip().split("==") for line in lines)
    return {pair[0].lower(): pair[1] for pair in pairs if len(pair) == 2}


def differing_versions(repository: Path) -> list[str]:
    """The numerical packages that are not as pinned, in words; their results get addresses of their own."""
    known = pins(repository)
    return [
        f"{name} is {found}, pinned is {known[name.lower()]}: results get addresses of their own"
        for name, found in _installed(NUMERICAL_PACKAGES.values())
        if name.lower() in known and found != known[name.lower()]
    ]


def _installed(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in sorted(set(names)):
        try:
            yield name, importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            yield name, "missing"
