"""A step of the walk: a move, a request for the products, and comparisons."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import yaml
from support.checkout import Checkout

HERE = Path(__file__).resolve().parent
STUDY, SIBLING = "walk", "walk2"

CHOICES: Mapping[str, tuple[dict[str, object], ...]] = {
    "rate": ({}, {"methods": {"core": {"learning_rate": 2.0e-3}}}),
    "guidance": ({}, {"sampling": {"guidance_scale": 2.0}}),
    "rows": (
        {},
        {"tables": {"table1": {"rows": ["original", "core"]}}},
        {"tables": {"table1": {"rows": ["original", "esd"]}}},
    ),
    "pixels": ({}, {"figures": {"figure2": {"pixels": 64}}}),
}
"""The leaves that the walk changes, with their overlays of the study."""

Configuration = tuple[int, ...]

BEGINNINGS = ("table", "charts", "figure", "claims", "report")
"""The beginnings of the names of products."""

RECORD = re.compile(r"provenance|^report\.(html|costs)")
"""The names of files with times and places, which differ between equal results."""

UNTOUCHED = {
    Path("runs/backup/important/notes.txt"): "not a run",
    Path("results/walk/notes.txt"): "mine",
    Path("runs/unlearning/my-copy/weights.bin"): "mine, too",
}
"""The user's own files beside the results, which must never be removed."""


PRODUCTS = ("table1.csv", "charts1.values.png", "figure2.png", "claims.md", "report.html")
"""A file of each product of a study."""


def targets_of(study: str) -> list[str]:
    """The products of a study."""
    return [f"results/{study}/{name}" for name in PRODUCTS]


def checkout_at(folder: Path) -> Checkout:
    """A checkout with the studies of the walk."""
    if folder.exists():
        return Checkout(folder)
    checkout = Checkout.at(folder)
    write_studies(checkout, tuple(0 for _ in CHOICES))
    return checkout


def write_studies(checkout: Checkout, configuration: Configuration) -> None:
    """Write the study of a configuration, and a second study that shares most runs with it."""
    study = yaml.safe_load((HERE / "study.yaml").read_text())
    for chosen, overlays in zip(configuration, CHOICES.values(), strict=True):
        study = _merge(study, overlays[chosen])
    folder = checkout.folder / "config/studies"
    (folder / f"{STUDY}.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    (folder / f"{SIBLING}.yaml").write_text(
        f"base: {STUDY}\ntables: {{table1: {{rows: [original, core]}}}}\nfigures: {{figure2: {{seed: 288}}}}\n"
    )


def _merge(below: object, above: object) -> dict[str, object]:
    assert isinstance(below, dict) and isinstance(above, dict)
    found = dict(below)
    for key, value in above.items():
        found[key] = _merge(found.get(key, {}), value) if isinstance(value, dict) else value
    return found


def products_at(checkout: Checkout, study: str) -> dict[str, str]:
    """The hashes of all files of a study's products, except those that describe the computation."""
    folder = checkout.folder / "results" / study
    paths = [path for path in sorted(folder.glob("*")) if path.name.startswith(BEGINNINGS)]
    return {path.name: hash_of(path) for path in paths if path.is_file() and not RECORD.search(path.name)}


def hash_of(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def results_at(checkout: Checkout) -> dict[Path, str]:
    """The hashes of the files of all runs, except files that depend on the time and place of the build."""
    runs = checkout.folder / "runs"
    found = {}
    for path in runs.rglob("*"):
        name = path.name
        if path.is_file() and not path.is_symlink() and not name.startswith("."):
            if (
                "provenance" in name
                or name == "specification.json"
                or path.suffix == ".lease"
                or "shards" in path.parts
            ):
                continue
            found[path.relative_to(checkout.folder)] = hash_of(path)
    return found


def complete_runs(checkout: Checkout) -> set[str]:
    """The runs that have a manifest."""
    runs = checkout.folder / "runs"
    return {path.parent.relative_to(runs).as_posix() for path in runs.glob("*/*/manifest.json")}


class Reference:
    """An undisturbed folder that builds the products of each configuration."""

    def __init__(self, folder: Path) -> None:
        self.checkout = checkout_at(folder)
        self._products: dict[tuple[Configuration, str], dict[str, str]] = {}

    def products(self, configuration: Configuration, study: str) -> dict[str, str]:
        """The hashes of a study's products."""
        key = configuration, study
        if key not in self._products:
            write_studies(self.checkout, configuration)
            shutil.rmtree(self.checkout.folder / "results", ignore_errors=True)
            done = self.checkout.snakemake("--cores", "2", *targets_of(study))
            assert done.returncode == 0, done.stdout[-5000:]
            self._products[key] = products_at(self.checkout, study)
            kept = self.folder_of(configuration, study)
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(self.checkout.folder / "results" / study, kept)
        return self._products[key]

    def folder_of(self, configuration: Configuration, study: str) -> Path:
        """The folder with the products of a configuration, once they have been built."""
        name = "".join(map(str, configuration))
        return self.checkout.folder / "kept" / f"{study}-{name}"


@dataclass(frozen=True)
class Step:
    """The result of one step.

    Attributes:
        number: number of the step.
        move: name of the move.
        detail: description of the move.
        requests: number of requests until the products were built.
        faults: descriptions, each beginning with its kind: STALE, LOST, UNCLEAR, VERIFY.
    """

    number: int
    move: str
    detail: str
    requests: int
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        repeated = "" if self.requests == 1 else f" [requested {self.requests} times]"
        return "\n    ".join([f"{self.number:4d} {self.move}: {self.detail}{repeated}", *self.faults])


class Walk:
    """A folder of results, and the changes that a user makes to it.

    Args:
        folder: the folder of results.
        reference: the undisturbed results.
        seed: seed of all random choices.
    """

    def __init__(self, folder: Path, reference: Reference, seed: int) -> None:
        self.checkout = checkout_at(folder)
        self.folder = folder
        self.reference = reference
        self.random = random.Random(seed)
        self.configuration: Configuration = tuple(0 for _ in CHOICES)
        self.study = STUDY
        self.number = 0
        self.disturbed = set[str]()
        write_studies(self.checkout, self.configuration)
        reference.products(self.configuration, self.study)
        done = self.checkout.snakemake("--cores", "2", *targets_of(self.study))
        assert done.returncode == 0, done.stdout[-5000:]
        for path, content in UNTOUCHED.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content)

    def configure(self, configuration: Configuration) -> None:
        """Edit the study."""
        self.configuration = configuration
        write_studies(self.checkout, configuration)

    def step(self) -> Step:
        """Make one move, request the products, and compare."""
        from moves import MOVES, WEIGHTS

        self.number += 1
        move = self.random.choices(MOVES, WEIGHTS)[0]
        detail = move(self)
        wanted = self.reference.products(self.configuration, self.study)
        before = complete_runs(self.checkout)
        requests, faults = 0, list[str]()
        while requests < 3:
            requests += 1
            done = self.checkout.snakemake("--cores", "2", *targets_of(self.study))
            if done.returncode == 0:
                break
            if "Traceback" in done.stdout or done.stdout.count("Error: ") < 1:
                faults.append(f"UNCLEAR: {done.stdout[-1500:]}")
        else:
            faults.append(f"LOST: the third request failed, too: {done.stdout[-1500:]}")
        if (found := products_at(self.checkout, self.study)) != wanted:
            names = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
            faults.append(f"STALE: {', '.join(names)}")
        if gone := before - complete_runs(self.checkout):
            faults.append(f"LOST: {', '.join(sorted(gone))}")
        for path, content in UNTOUCHED.items():
            if not (self.folder / path).exists() or (self.folder / path).read_text() != content:
                faults.append(f"LOST: {path}")
                (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / path).write_text(content)
        faults += self._compare_with_verify()
        return Step(self.number, move.__name__, detail, requests, faults)

    def _compare_with_verify(self) -> list[str]:
        """The faults of `verify`: differing runs that it does not name, and undisturbed runs that it names."""
        done = self.checkout.python("-m", "corelib", "verify", timeout=300)
        named = [line for line in done.stdout.splitlines() if "faults" not in line and "clean RUN" not in line]
        expected = results_at(self.reference.checkout)
        present = results_at(self.checkout)
        complete = complete_runs(self.checkout)
        faults = []
        for path, digest in present.items():
            run = "/".join(path.parts[1:3])
            if run in complete and expected.get(path, digest) != digest and not any(run in line for line in named):
                faults.append(f"VERIFY: does not name {path}")
        for line in named:
            if line.startswith("runs/") and not any(run in line for run in self.disturbed):
                faults.append(f"VERIFY: names an undisturbed run: {line}")
        return faults

    def damaged(self) -> list[str]:
        """The runs that `verify` names."""
        done = self.checkout.python("-m", "corelib", "verify", timeout=300)
        runs = complete_runs(self.checkout)
        return sorted(run for run in runs if run in done.stdout)


def digest_in(manifest: Path) -> str | None:
    """The digest in a manifest; None if it is not readable."""
    try:
        return str(json.loads(manifest.read_text())["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
