"""Shared fixtures: the tiny study, built once, in the folder of its build and as a copy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from support.checkout import TINY, Checkout, Places, build_once


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

    folder = build_once(tmp_path_factory, "tiny", make)
    return Places(folder / "workplace", folder / "copy")


@pytest.fixture(scope="session")
def built(places: Places) -> Checkout:
    """A checkout with the tiny study, for tests that change nothing in it."""
    return Checkout(places.copy)


@pytest.fixture
def workplace(places: Places) -> Iterator[Checkout]:
    """The folder in which the tiny study was built, with all of Snakemake's metadata, as a user would have it.

    Snakemake records some files by their absolute paths, so a copy does not behave in the same way. Only one test at a
    time uses the folder, which is restored afterwards.
    """
    with FileLock(places.workplace.with_suffix(".lock")):
        yield Checkout(places.workplace)
        shutil.rmtree(places.workplace)
        shutil.copytree(places.copy, places.workplace, symlinks=True)


@pytest.fixture
def checkout(built: Checkout, tmp_path: Path) -> Checkout:
    """A fresh clone with the results of the tiny study, without Snakemake's metadata."""
    clone = Checkout.at(tmp_path / "clone")
    for name in ("runs", "results"):
        shutil.copytree(built.folder / name, clone.folder / name)
    return clone


@pytest.fixture(params=["in place", "in a clone"])
def workplace_or_clone(request: pytest.FixtureRequest) -> Checkout:
    """The folder of the build, with Snakemake's metadata, and a fresh clone without it."""
    checkout: Checkout = request.getfixturevalue("workplace" if request.param == "in place" else "checkout")
    return checkout


@pytest.fixture(params=["in place", pytest.param("in a clone", marks=pytest.mark.slow)])
def workplace_or_slow_clone(request: pytest.FixtureRequest) -> Checkout:
    """The same two; the clone only in `make test-all`, since these tests build everything twice."""
    checkout: Checkout = request.getfixturevalue("workplace" if request.param == "in place" else "checkout")
    return checkout
