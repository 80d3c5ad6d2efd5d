"""Verifying a results folder: do all hashes, specifications and digests still belong together?

Read-only, and independent of the configuration: what lies there has to be true by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corelib.addresses import RESULTS, RUNS, SPECIFICATION, digest_of
from corelib.artefacts import MANIFEST, followed, read_json, sha256_of
from corelib.errors import ArtefactError
from corelib.origins import RECORD
from corelib.targets import PRODUCTS


@dataclass(frozen=True)
class Verified:
    """What was looked through.

    Attributes:
        runs: complete ones.
        unfinished: runs that have no manifest, which nobody takes for results.
        products: tables and figures.
        faults: each in one sentence.
    """

    runs: int
    unfinished: int
    products: int
    faults: list[str]

    def __str__(self) -> str:
        said = f"{self.runs} complete runs and {self.products} products, {len(self.faults)} faults"
        return said + (f"; {self.unfinished} runs are unfinished." if self.unfinished else ".")


def verify_results() -> Verified:
    """Look through `runs/` and `results/` of the working directory, and hash every file that is vouched for."""
    folders = sorted(path for path in RUNS.glob("*/*") if path.is_dir() and path.parent.name not in PRODUCTS)
    complete = [folder for folder in folders if (folder / MANIFEST).exists()]
    records = sorted(path for path in RESULTS.rglob("*.json") if not path.name.startswith("."))
    products = [path for path in records if not path.name.endswith(f".{RECORD.partition('.')[2]}")]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        of_runs = pool.map(_collected(_faults_of_run), complete)
        of_products = pool.map(_collected(_faults_of_product), products)
        faults = [fault for found in (*of_runs, *of_products) for fault in found]
    return Verified(len(complete), len(folders) - len(complete), len(products), faults)


def _collected(faults_of: Callable[[Path], Iterator[str]]) -> Callable[[Path], list[str]]:
    """All faults of a place; what is not readable is one."""

    def collected(place: Path) -> list[str]:
        found: list[str] = []
        try:
            found.extend(faults_of(place))
        except (ArtefactError, OSError, KeyError, TypeError, AttributeError) as error:
            said = str(error) if isinstance(error, ArtefactError) else f"{place}: not as it was written ({error!r})."
            found.append(said)
        return found

    return collected


def _faults_of_run(folder: Path) -> Iterator[str]:
    specification, manifest = read_json(folder / SPECIFICATION), read_json(folder / MANIFEST)
    digest = digest_of(specification)
    if digest != specification["digest"] or not folder.name.endswith(f"-{digest[:12]}"):
        yield f"{folder / SPECIFICATION}: its content has the digest {digest[:12]}, expected that of its folder's name."
    if folder.parent.name != specification["stage"]:
        yield f"{folder}: its specification is one of the stage {specification['stage']}."
    yield from _faults_of_manifest(folder / MANIFEST, manifest, digest)
    yield from _faults_below(folder, specification, manifest)
    yield from _faults_of_provenance(folder / RECORD, specification, manifest)
    if specification["stage"] == "assets":
        yield from _faults_of_assets(folder, specification["settings"]["sha256"])


def _faults_of_assets(folder: Path, locked: Mapping[str, str | None]) -> Iterator[str]:
    """The user's own files, through the links to them. Images are looked at one by one by whoever reads them."""
    for name, sha256 in locked.items():
        file = followed(folder / name)
        if not file.exists():
            yield f"{file}: missing, expected the asset that {folder} has taken into use."
        elif name != "images" and (found := sha256_of(file)) != sha256:
            yield f"{file}: its sha256 is {found[:12]}, expected {str(sha256)[:12]}, which {folder} has taken into use."


def _faults_of_manifest(path: Path, manifest: Any, digest: str) -> Iterator[str]:
    if manifest["digest"] != digest:
        yield f"{path}: it vouches for the run {manifest['digest'][:12]}, expected {digest[:12]}."
    for name, sha256 in manifest["files"].items():
        file = path.parent / name
        if not file.exists():
            yield f"{file}: missing, expected what {path} vouches for."
        elif (found := sha256_of(file)) != sha256:
            yield f"{file}: its sha256 is {found[:12]}, expected {sha256[:12]} as in {path}."


def _faults_below(folder: Path, specification: Any, manifest: Any) -> Iterator[str]:
    """What it was built on may be gone; what is there has to be what it was."""
    for role, name in specification["builds_on"].items():
        below = RUNS / name / SPECIFICATION
        if below.exists() and (found := digest_of(read_json(below))) != specification["inputs"][role]:
            expected = specification["inputs"][role]
            yield f"{folder}: it was built on the {role} {expected[:12]}, and {below} is {found[:12]}."
    for name, seal in manifest["trained"].items():
        model = RUNS / name / MANIFEST
        if model.exists() and read_json(model)["seal"] != seal:
            yield f"{folder}: it was made with another build of the model {RUNS / name} than the one that lies there."


def _faults_of_provenance(path: Path, specification: Any, manifest: Any) -> Iterator[str]:
    if not path.exists():
        yield f"{path}: missing, expected who made the run, where and with what."
        return
    record = read_json(path)
    if record["manifest"] != manifest:
        yield f"{path}: it is the record of another manifest than the one beside it."
    if digest_of(record["specification"]) != digest_of(specification):
        yield f"{path}: it is the record of another run ({digest_of(record['specification'])[:12]})."


def _faults_of_product(path: Path) -> Iterator[str]:
    manifest = read_json(path)
    yield from _faults_of_manifest(path, manifest, manifest["digest"])
    if not list(RUNS.glob(f"{manifest['stage']}/*-{manifest['digest'][:12]}/{SPECIFICATION}")):
        name = f"{manifest['stage']}/...-{manifest['digest'][:12]}"
        yield f"{path}: its run {name} is not in {RUNS}, expected its specification."
