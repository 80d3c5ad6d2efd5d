"""Verifying a results folder: do all hashes, seals, specifications and digests still belong together?

Read-only, and independent of the configuration: what lies there has to be true by itself. Every file below `runs/` and
`results/` is vouched for, directly or by a folder's hash, by a manifest or by a provenance record; and these, like the
specifications and the records of batches, carry a seal of their own.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from corelib.commands.run_folders import NO_RESULT, is_run_folder, runs_behind, unvouched
from corelib.errors import ArtefactError, listed, reason_of
from corelib.files.hashing import files_below, sha256_of
from corelib.files.paths import below, followed
from corelib.files.sealed_json import SealedRecord, if_readable, is_as_written
from corelib.runs.layout import MANIFEST, RECORD, RUNS, SHARDS, SPECIFICATION
from corelib.runs.manifest import Manifest, read_manifest
from corelib.runs.owner import is_held
from corelib.runs.provenance import ENDING, Provenance, provenance_path, read_provenance
from corelib.runs.specification import Specification, read_specification
from corelib.runs.stages import PRODUCTS, settings_in
from corelib.sampling.batch_record import read_batch
from corelib.sampling.grid import BATCHES, IMAGES
from corelib.settings.unlearn_canvas import AdoptionStage
from corelib.study.targets import product_files

SHARD = re.compile(r"(\d+)-of-(\d+)\.json")

Kind = TypeVar("Kind", bound=SealedRecord)


@dataclass(frozen=True)
class Verified:
    """What was looked through.

    Attributes:
        runs: complete ones.
        unfinished: runs that have no manifest, which nobody takes for results.
        products: tables, figures and gates.
        faults: each in one sentence.
        affected: the products that are made of runs with faults, each in one sentence.
        others: files and folders that are neither a run's nor a product's.
    """

    runs: int
    unfinished: int
    products: int
    faults: list[str]
    affected: list[str] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)

    def __str__(self) -> str:
        said = f"{self.runs} complete runs and {self.products} products, {len(self.faults)} faults"
        return said + (f"; {self.unfinished} runs are unfinished." if self.unfinished else ".")


def verify_results() -> Verified:
    """Look through `runs/` and `results/` of the working directory, and hash every file that is vouched for."""
    folders = [path for path in sorted(RUNS.glob("*/*")) if is_run_folder(path)]
    products, others = product_files()
    others = [path for path in sorted(RUNS.glob("*/*")) if not is_run_folder(path)] + others
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        of_runs = dict(zip(folders, pool.map(_collected(_faults_of_run), folders), strict=True))
        faults_of_product = functools.partial(_faults_of_product, products)
        of_products = list(pool.map(_collected(faults_of_product), sorted(products)))
    faulty = {path.relative_to(RUNS).as_posix() for path, found in of_runs.items() if found}
    made = [path for path in folders if path.parent.name not in PRODUCTS]
    complete = [path for path in made if (path / MANIFEST).exists()]
    return Verified(
        runs=len(complete),
        unfinished=len(made) - len(complete),
        products=sum(path.exists() for path in products),
        faults=[fault for found in (*of_runs.values(), *of_products) for fault in found],
        affected=list(_affected(sorted(products), faulty)),
        others=others,
    )


def _collected(faults_of: Callable[[Path], Iterator[str]]) -> Callable[[Path], list[str]]:
    """All faults of a place; what is not readable is one."""

    def collected(place: Path) -> list[str]:
        found: list[str] = []
        try:
            found.extend(faults_of(place))
        except ArtefactError as error:
            found.append(str(error))
        except (OSError, ValueError) as error:  # of paths that the system refuses
            found.append(f"{place}: not readable ({reason_of(error)}).")
        return found

    return collected


def _read(reader: Callable[[Path], Kind], path: Path) -> Generator[str, None, Kind | None]:
    """Read a record. Yields its fault, if it has one, and returns None if it cannot be read."""
    try:
        record = reader(path)
    except ArtefactError as error:
        yield str(error)
        return None
    if not is_as_written(path, record):
        yield f"{path}: not as it was written, expected the very bytes that were written for its content."
    return record


# Runs


def _faults_of_run(folder: Path) -> Iterator[str]:
    manifest, record = folder / MANIFEST, folder / RECORD
    is_product = folder.parent.name in PRODUCTS
    if is_product or not manifest.exists():
        if (folder / SPECIFICATION).exists():
            yield from _faults_of_specification(folder)
        if not is_product and record.exists() and not is_held(manifest.with_suffix(".lease")):
            yield (
                f"{manifest}: missing, though {record.name} says that the run was completed; ask for the target again, "
                "and it is written anew without computing."
            )
        if is_product:
            yield from _unvouched_files(folder / SPECIFICATION, unvouched(folder, ()))
        return
    specification = yield from _faults_of_specification(folder)
    made = yield from _read(read_manifest, manifest)
    if made is None:
        return
    yield from _faults_of_manifest(manifest, folder, made, specification)
    yield from _faults_of_record(record, folder, made)
    if specification is not None:
        yield from _faults_below(str(folder), specification, made)
    if folder.parent.name == "samples":
        yield from _faults_of_shares(folder, specification, made)
    if specification is not None and specification.stage == "assets":
        try:
            settings = settings_in(specification)
        except ArtefactError as error:
            yield str(error)
        else:
            assert isinstance(settings, AdoptionStage)
            yield from _faults_of_assets(folder, settings.sha256)
    yield from _unvouched_files(manifest, unvouched(folder, made.files))


def _faults_of_specification(folder: Path) -> Generator[str, None, Specification | None]:
    """Of the specification in a run's folder. Returns it, or None if it cannot be read."""
    path = folder / SPECIFICATION
    specification = yield from _read(read_specification, path)
    if specification is None:
        return None
    if not folder.name.endswith(f"-{specification.digest[:12]}"):
        yield f"{path}: its content has the digest {specification.digest[:12]}, expected that of its folder's name."
    if folder.parent.name != specification.stage:
        yield f"{folder}: its specification is one of the stage {specification.stage}."
    for role, name in specification.builds_on.items():
        digest = specification.inputs[role]
        if not name.endswith(f"-{digest[:12]}"):
            yield f"{path}: it names {name} as its {role}, expected a run of the digest {digest[:12]}."
    return specification


def _faults_of_manifest(
    path: Path, folder: Path, manifest: Manifest, specification: Specification | None
) -> Iterator[str]:
    """Of a manifest over files in `folder`."""
    if specification is not None:
        expected = specification.stage, specification.digest
        if (manifest.stage, manifest.digest) != expected:
            found = f"{manifest.stage} {manifest.digest[:12]}"
            yield f"{path}: it vouches for the run {found}, expected {expected[0]} {expected[1][:12]}."
    yield from _faults_of_files(path, folder, manifest.files)


def _faults_of_files(path: Path, folder: Path, files: Mapping[str, str]) -> Iterator[str]:
    """Of the files in `folder` for whose hashes the file `path` vouches."""
    for name, sha256 in files.items():
        file = below(folder, name)
        if not file.exists():
            yield f"{file}: missing, expected what {path} vouches for."
        elif (found := sha256_of(file)) != sha256:
            yield f"{file}: its sha256 is {found[:12]}, expected {sha256[:12]} as in {path}."


def _faults_of_record(path: Path, folder: Path, manifest: Manifest) -> Generator[str, None, Provenance | None]:
    """Of the provenance record beside a manifest over files in `folder`. Returns it, or None if it cannot be read."""
    if not path.exists():
        yield f"{path}: missing, expected who made the run, where and with what."
        return None
    record = yield from _read(read_provenance, path)
    if record is None:
        return None
    if record.manifest.seal != manifest.seal:
        yield f"{path}: it is the record of another manifest than the one beside it."
    if record.specification.digest != manifest.digest:
        yield f"{path}: it is the record of another run ({record.specification.digest[:12]})."
    yield from _faults_of_files(path, folder, record.records)
    return record


def _faults_below(what: str, specification: Specification, manifest: Manifest) -> Iterator[str]:
    """What a run was built on may be gone; what is there has to be what it was. A damaged record has a fault itself."""
    for role, name in specification.builds_on.items():
        run, expected = RUNS / name, specification.inputs[role]
        planned = if_readable(read_specification, run / SPECIFICATION)
        if planned is not None and planned.digest != expected:
            yield (
                f"{what}: it was built on the {role} {expected[:12]}, and {run / SPECIFICATION} is "
                f"{planned.digest[:12]}."
            )
        made = if_readable(read_manifest, run / MANIFEST)
        for model, seal in made.trained.items() if made is not None else ():
            if manifest.trained.get(model) != seal:
                yield f"{what}: it was made with another build of the model {RUNS / model} than its {role}, {run}."
    for name, seal in manifest.trained.items():
        model_made = if_readable(read_manifest, RUNS / name / MANIFEST)
        if model_made is not None and model_made.seal != seal:
            yield f"{what}: it was made with another build of the model {RUNS / name} than the one that lies there."


def _faults_of_assets(folder: Path, locked: Mapping[str, str | None]) -> Iterator[str]:
    """The user's own files, through the links to them. Images are looked at one by one by whoever reads them."""
    for name, sha256 in locked.items():
        file = followed(folder / name)
        if not file.exists():
            yield f"{file}: missing, expected the asset that {folder} has taken into use."
        elif name != "images" and (found := sha256_of(file)) != sha256:
            yield f"{file}: its sha256 is {found[:12]}, expected {str(sha256)[:12]}, which {folder} has taken into use."


def _unvouched_files(vouching: Path, files: list[Path]) -> Iterator[str]:
    for path in files:
        yield f"{path}: {vouching} does not vouch for it, expected no such file; move it elsewhere or delete it."


# The shares of a run's images


def _faults_of_shares(folder: Path, specification: Specification | None, manifest: Manifest) -> Iterator[str]:
    """Of the manifests of shards, which vouch for the records of batches, and of these, which vouch for the images."""
    records: set[str] = set()
    sets: dict[int, set[int]] = {}
    is_complete = True
    for path in sorted((folder / SHARDS).iterdir()) if (folder / SHARDS).is_dir() else []:
        if path.name.startswith(".") or path.name.endswith(NO_RESULT):
            continue
        of = path.name.replace(ENDING, ".json")
        if not (number := SHARD.fullmatch(of)):
            yield from _unvouched_files(folder / MANIFEST, [path])
            continue
        if of != path.name:
            if not path.with_name(of).exists():
                yield f"{path.with_name(of)}: missing, expected the manifest of {path}."
            continue
        sets.setdefault(int(number[2]), set()).add(int(number[1]))
        shard = yield from _read(read_manifest, path)
        if shard is None:
            is_complete = False
            continue
        yield from _faults_of_manifest(path, folder, shard, specification)
        yield from _faults_of_record(provenance_path(path), folder, shard)
        if shard.trained != manifest.trained:
            yield f"{path}: it was made with other builds of models than {folder / MANIFEST} says."
        records |= shard.files.keys()
    if not any(len(numbers) == shards for shards, numbers in sets.items()):
        yield f"{folder / SHARDS}: the manifest of a shard is missing, expected all of a run whose images are complete."
    if is_complete:
        yield from _faults_of_batches(folder, records, manifest)


def _faults_of_batches(folder: Path, vouched: Collection[str], manifest: Manifest) -> Iterator[str]:
    """Of the records of batches: the shards' manifests vouch for each, and they together for all images."""
    images: set[str] = set()
    is_complete = True
    for path in files_below(folder / BATCHES):
        if path.relative_to(folder).as_posix() not in vouched:
            yield from _unvouched_files(folder / SHARDS, [path])
            continue
        record = yield from _read(read_batch, path)
        if record is None:
            is_complete = False
            continue
        if record.trained != manifest.trained:
            yield f"{path}: it was made with other builds of models than {folder / MANIFEST} says."
        yield from _faults_of_files(path, folder, {f"{IMAGES}/{name}": sha for name, sha in record.images.items()})
        images |= record.images.keys()
    if is_complete:
        stray = [path for path in files_below(folder / IMAGES) if path.name not in images]
        yield from _unvouched_files(folder / BATCHES, stray)


# Tables, figures and gates


def _faults_of_product(products: Mapping[Path, list[Path]], path: Path) -> Iterator[str]:
    """Of a product, by the path of its manifest, which need not be there."""
    if is_held(path.with_suffix(".lease")):
        return
    if not path.exists():
        names = ", ".join(file.name for file in products[path])
        yield f"{path}: missing, expected what vouches for {names}; ask for the target again, or move these elsewhere."
        return
    made, record_path = (yield from _read(read_manifest, path)), provenance_path(path)
    if made is None:
        return
    record = yield from _faults_of_record(record_path, path.parent, made)
    found = next(RUNS.glob(f"{made.stage}/*-{made.digest[:12]}/{SPECIFICATION}"), None)
    if found is None:
        specification = record.specification if record is not None else None
        slug = specification.slug if specification is not None else "*"
        lost = RUNS / made.stage / f"{slug}-{made.digest[:12]}" / SPECIFICATION
        yield f"{lost}: missing, expected the specification of {path}; ask for the target again to write it anew."
    else:
        specification = if_readable(read_specification, found)
    yield from _faults_of_manifest(path, path.parent, made, specification)
    if specification is not None:
        if path.stem != (called := specification.settings.get("name", path.stem)):
            yield f"{path}: it is the manifest of {called}, expected that of {path.stem}."
        yield from _faults_below(f"{path}: {path.stem}", specification, made)
    for name, seal in made.inputs.items():
        shown = if_readable(read_manifest, RUNS / name / MANIFEST)
        if shown is not None and shown.seal != seal:
            yield f"{path}: {path.stem} shows an earlier result of {RUNS / name} than the one that lies there."
    vouched = {path.name, record_path.name, *made.files, *(record.records if record is not None else ())}
    yield from _unvouched_files(path, [file for file in products[path] if file.name not in vouched])


def _affected(products: list[Path], faulty: Collection[str]) -> Iterator[str]:
    """Which products are made of runs that have faults."""
    for path in products:
        record = if_readable(read_provenance, provenance_path(path))
        behind = sorted(runs_behind(record.specification.builds_on.values()) & set(faulty)) if record else []
        if behind:
            names = listed([str(RUNS / name) for name in behind])
            yield f"{path.with_suffix('')} is made of runs that have faults: {names}."
