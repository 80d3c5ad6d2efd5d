"""The pinned versions of packages, and the installed versions that differ from them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator
from pathlib import Path

from corelib.runs.fingerprint import NUMERICAL_PACKAGES

PINS, PINS_OF_CUDA_12 = Path("envs/requirements.txt"), Path("envs/requirements-cuda12.txt")
"""Files with pins, relative to the repository. A pin in the second replaces the pin of that package in the first."""


def pinned_versions(repository: Path) -> dict[str, str]:
    """The pinned version of every package of the environment.

    The pins are those for CUDA 12 if the installed torch is pinned there, and those for CUDA 13 otherwise.
    """
    cuda_13, cuda_12 = _read_pins(repository / PINS), _read_pins(repository / PINS_OF_CUDA_12)
    return cuda_13 | cuda_12 if dict(_installed(["torch"])) == {"torch": cuda_12["torch"]} else cuda_13


def _read_pins(file: Path) -> dict[str, str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    pairs = (line.split("#")[0].strip().split("==") for line in lines)
    return {pair[0].lower(): pair[1] for pair in pairs if len(pair) == 2}


def differing_versions(repository: Path) -> list[str]:
    """A sentence for each numerical package whose version is not the pinned one; results then get other addresses."""
    pinned = pinned_versions(repository)
    return [
        f"{name} is {version}, but {pinned[name.lower()]} is pinned; results get other addresses"
        for name, version in _installed(NUMERICAL_PACKAGES.values())
        if name.lower() in pinned and version != pinned[name.lower()]
    ]


def _installed(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in sorted(set(names)):
        try:
            yield name, importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            yield name, "missing"
