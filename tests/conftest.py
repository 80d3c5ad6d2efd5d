"""What tests share: a small world of random weights, and checkouts in which Snakemake really runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

REPOSITORY = Path(__file__).resolve().parent.parent
WORKFLOW = ["Snakefile", "rules", "workflow_scripts", "corelib", "config", "envs", "profiles", "slurm"]

sys.path.insert(0, str(REPOSITORY / "tests"))


@dataclass(frozen=True)
class Checkout:
    """A copy of the workflow in a folder of its own."""

    folder: Path

    @classmethod
    def at(cls, folder: Path) -> Checkout:
        folder.mkdir(parents=True, exist_ok=True)
        for name in WORKFLOW:
            source, target = REPOSITORY / name, folder / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        return cls(folder)

    def snakemake(self, *arguments: str, timeout: float = 1200) -> subprocess.CompletedProcess[str]:
        """Run Snakemake here; its output is that of both streams together."""
        return self.python("-m", "snakemake", *arguments, timeout=timeout)

    def python(self, *arguments: str, timeout: float = 60, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Python here, with some more environment variables; its output is that of both streams together."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )

    def planned(self, *targets: str) -> dict[str, int]:
        """How many jobs of each rule a dry run would execute."""
        done = self.snakemake("--dry-run", *targets)
        assert done.returncode == 0, done.stdout
        if "Nothing to be done" in done.stdout:
            return {}
        lines = done.stdout.split("Job stats:")[-1].splitlines()[3:]
        counts = {}
        for line in lines:
            if not line.strip() or line.startswith("total"):
                break
            rule, count = line.split()
            counts[rule] = int(count)
        return counts

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace the one occurrence of a text in a file."""
        path = self.folder / name
        content = path.read_text()
        assert content.count(old) == 1, f"{name} has {content.count(old)} times {old!r}"
        path.write_text(content.replace(old, new))


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that takes minutes to make: of several workers one makes it, and the others wait."""
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, made = shared / name, shared / f"{name}.made"
    with FileLock(shared / f"{name}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            made.touch()
    return folder


TINY = ("results/tiny/table1.csv", "results/tiny/figure2.png")


@dataclass(frozen=True)
class Places:
    """The folder in which the tiny study was built, and a copy of all that was in it then."""

    workplace: Path
    copy: Path


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
