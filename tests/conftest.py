"""Fixtures of all tests: the tiny study, built once, where it was built and as a clone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from support.checkout import TINY, Checkout, Places, made_once


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the tests that take minutes first."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    """The tiny study, built once."""

    def make(folder: Path) -> None:
        done = Checkout.at(folder / "workplace").snakemake("--cores", "2", *TINY)
        assert done.returncode == 0, done.stdout[-6000:]
        shutil.copytree(folder / "workplace", folder / "copy", symlinks=True)

    folder = made_once(tmp_path_factory, "tiny", make)
    return Places(folder / "workplace", folder / "copy")


@pytest.fixture(scope="session")
def built(places: Places) -> Checkout:
    """A checkout with the tiny study, for tests that only look."""
    return Checkout(places.copy)


@pytest.fixture
def workplace(places: Places) -> Iterator[Checkout]:
    """The folder in which the tiny study was built, with all that Snakemake remembers of it: where users stand.

    Snakemake knows some files by their absolute path, so a copy is not the same. One test at a time has it; afterwards
    it is put back as it was.
    """
    with FileLock(places.workplace.with_suffix(".lock")):
        yield Checkout(places.workplace)
        shutil.rmtree(places.workplace)
        shutil.copytree(places.copy, places.workplace, symlinks=True)


@pytest.fixture
def checkout(built: Checkout, tmp_path: Path) -> Checkout:
    """A fresh clone beside the results of the tiny study, without Snakemake's own memory."""
    clone = Checkout.at(tmp_path / "clone")
    for name in ("runs", "results"):
        shutil.copytree(built.folder / name, clone.folder / name)
    return clone


@pytest.fixture(params=["in place", "in a clone"])
def either(request: pytest.FixtureRequest) -> Checkout:
    """The folder of the build with Snakemake's memory, and a fresh clone without it."""
    found: Checkout = request.getfixturevalue("workplace" if request.param == "in place" else "checkout")
    return found


@pytest.fixture(params=["in place", pytest.param("in a clone", marks=pytest.mark.slow)])
def anywhere(request: pytest.FixtureRequest) -> Checkout:
    """The same two, of which the clone waits for `make test-all`: for tests that build something twice."""
    found: Checkout = request.getfixturevalue("workplace" if request.param == "in place" else "checkout")
    return found
