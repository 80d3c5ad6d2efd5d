"""Verification of a results folder: whether all hashes, seals, specifications and digests match.

Verification is read-only and independent of the configuration. A manifest or a provenance record lists the sha256 of
every file below `runs/` and `results/`, or of the folder that contains it. Manifests, provenance records,
specifications and records of batches have seals.
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

from corelib.errors import ArtefactError, listed, short_message
from corelib.files.hashing import files_below, sha256_of_path
from corelib.files.paths import path_inside, resolve_links
from corelib.files.sealed_json import SealedRecord, bytes_match, read_or_none
from corelib.files.text import counted
from corelib.maintenance.run_files import UNFINISHED_SUFFIXES, is_run_folder, unlisted_files, with_dependencies
from corelib.runs.layout import MANIFEST, RECORD, RUNS, SHARDS, SPECIFICATION
from corelib.runs.lease_owner import is_held
from corelib.runs.manifest import Manifest, read_manifest
from corelib.runs.provenance_record import PROVENANCE_SUFFIX, Provenance, provenance_path, read_provenance
from corelib.runs.specification import Specification, read_specification
from corelib.runs.stage_registry import PRODUCTS, settings_in
from corelib.sampling.batch_record import read_batch
from corelib.sampling.grid import BATCHES, IMAGES
from corelib.settings.assets import AdoptionStage
from corelib.study.targets import product_files

SHARD = re.compile(r"(\d+)-of-(\d+)\.json")

Kind = TypeVar("Kind", bound=SealedRecord)


@dataclass(frozen=True)
class VerificationResult:
    """The result of a verification.

    Attributes:
        runs: number of complete runs.
        unfinished: number of runs without a manifest, which are no results.
        products: number of tables, figures and reports of gates.
        faults: one sentence for each fault.
        affected: one sentence for each product that is made of runs with faults.
        others: files and folders that belong to no run and no product.
    """

    runs: int
    unfinished: int
    products: int
    faults: list[str]
    affected: list[str] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)

    def __str__(self) -> str:
        found = f"{counted(self.runs, 'complete run')} and {counted(self.products, 'product')}"
        summary = f"{found}, {counted(len(self.faults), 'fault')}"
        verb = "is" if self.unfinished == 1 else "are"
        unfinished = f"; {counted(self.unfinished, 'run')} {verb} unfinished." if self.unfinished else "."
        return summary + unfinished


def verify_results() -> VerificationResult:
    """Verify `runs/` and `results/` in the working directory. Hashes every file that has a recorded sha256."""
    folders = [path for path in sorted(RUNS.glob("*/*")) if is_run_folder(path)]
    products, others = product_files()
    others = [path for path in sorted(RUNS.glob("*/*")) if not is_run_folder(path)] + others
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        run_faults = dict(zip(folders, pool.map(_collected(_faults_of_run), folders), strict=True))
        faults_of_product = functools.partial(_faults_of_product, products)
        product_faults = list(pool.map(_collected(faults_of_product), sorted(products)))
    faulty = {path.relative_to(RUNS).as_posix() for path, faults in run_faults.items() if faults}
    runs = [path for path in folders if path.parent.name not in PRODUCTS]
    complete = [path for path in runs if (path / MANIFEST).exists()]
    return VerificationResult(
        runs=len(complete),
        unfinished=len(runs) - len(complete),
        products=sum(path.exists() for path in products),
        faults=[fault for faults in (*run_faults.values(), *product_faults) for fault in faults],
        affected=list(_affected(sorted(products), faulty)),
        others=others,
    )


def _collected(faults_of: Callable[[Path], Iterator[str]]) -> Callable[[Path], list[str]]:
    """Make a function that collects all faults of a path in a list, including an error while it is read."""

    def collected(path: Path) -> list[str]:
        faults: list[str] = []
        try:
            faults.extend(faults_of(path))
        except ArtefactError as error:
            faults.append(str(error))
        except (OSError, ValueError) as error:  # ValueError: a path that the operating system rejects
            faults.append(f"{path}: not readable ({short_message(error)}).")
        return faults

    return collected


def _read(reader: Callable[[Path], Kind], path: Path) -> Generator[str, None, Kind | None]:
    """Read a record. Yields its fault, if there is one. Returns None if it cannot be read."""
    try:
        record = reader(path)
    except ArtefactError as error:
        yield str(error)
        return None
    if not bytes_match(path, record):
        yield f"{path}: its bytes have changed since it was written, although its content has not."
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
                f"{manifest}: missing, but {record.name} records that the run was completed; ask for the target again, "
                "and the manifest is written again without computing the run."
            )
        if is_product:
            yield from _unlisted_files(folder / SPECIFICATION, unlisted_files(folder, ()))
        return
    specification = yield from _faults_of_specification(folder)
    content = yield from _read(read_manifest, manifest)
    if content is None:
        return
    yield from _faults_of_manifest(manifest, folder, content, specification)
    yield from _faults_of_record(record, folder, content)
    if specification is not None:
        yield from _faults_of_inputs(str(folder), specification, content)
    if folder.parent.name == "samples":
        yield from _faults_of_shards(folder, specification, content)
    if specification is not None and specification.stage == "assets":
        try:
            settings = settings_in(specification)
        except ArtefactError as error:
            yield str(error)
        else:
            assert isinstance(settings, AdoptionStage)
            yield from _faults_of_assets(folder, settings.sha256)
    yield from _unlisted_files(manifest, unlisted_files(folder, content.files))


def _faults_of_specification(folder: Path) -> Generator[str, None, Specification | None]:
    """The faults of the specification in a run's folder. Returns it, or None if it cannot be read."""
    path = folder / SPECIFICATION
    specification = yield from _read(read_specification, path)
    if specification is None:
        return None
    if not folder.name.endswith(f"-{specification.digest[:12]}"):
        yield f"{path}: its digest is {specification.digest[:12]}, expected the digest in the name of its folder."
    if folder.parent.name != specification.stage:
        yield f"{folder}: its specification belongs to the stage {specification.stage}."
    for role, name in specification.builds_on.items():
        digest = specification.inputs[role]
        if not name.endswith(f"-{digest[:12]}"):
            yield f"{path}: it names {name} as its {role}, expected a run with the digest {digest[:12]}."
    return specification


def _faults_of_manifest(
    path: Path, folder: Path, manifest: Manifest, specification: Specification | None
) -> Iterator[str]:
    """The faults of a manifest of files in `folder`, and of these files."""
    if specification is not None:
        expected = specification.stage, specification.digest
        if (manifest.stage, manifest.digest) != expected:
            actual = f"{manifest.stage} {manifest.digest[:12]}"
            yield f"{path}: it is the manifest of the run {actual}, expected {expected[0]} {expected[1][:12]}."
    yield from _faults_of_files(path, folder, manifest.files)


def _faults_of_files(path: Path, folder: Path, files: Mapping[str, str]) -> Iterator[str]:
    """The faults of the files in `folder` whose sha256 are listed in the file `path`."""
    for name, sha256 in files.items():
        file = path_inside(folder, name)
        if not file.exists():
            yield f"{file}: missing, expected the file listed in {path}."
        elif (actual := sha256_of_path(file)) != sha256:
            yield f"{file}: its sha256 is {actual[:12]}, expected {sha256[:12]} as in {path}."


def _faults_of_record(path: Path, folder: Path, manifest: Manifest) -> Generator[str, None, Provenance | None]:
    """The faults of the provenance record beside a manifest, and of the files in `folder` that it lists.

    Returns the record, or None if it cannot be read.
    """
    if not path.exists():
        yield f"{path}: missing, expected the provenance record of the run."
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


def _faults_of_inputs(subject: str, specification: Specification, manifest: Manifest) -> Iterator[str]:
    """Contradictions between a run and the runs that it builds on.

    A run that it builds on may be missing. If its files are damaged, the fault is reported for that run.
    """
    for role, name in specification.builds_on.items():
        run, expected = RUNS / name, specification.inputs[role]
        planned = read_or_none(read_specification, run / SPECIFICATION)
        if planned is not None and planned.digest != expected:
            yield (
                f"{subject}: it was built on the {role} {expected[:12]}, but {run / SPECIFICATION} is "
                f"{planned.digest[:12]}."
            )
        content = read_or_none(read_manifest, run / MANIFEST)
        for model, seal in content.trained.items() if content is not None else ():
            if manifest.trained.get(model) != seal:
                yield f"{subject}: it was made with another build of the model {RUNS / model} than its {role}, {run}."
    for name, seal in manifest.trained.items():
        model_content = read_or_none(read_manifest, RUNS / name / MANIFEST)
        if model_content is not None and model_content.seal != seal:
            yield f"{subject}: it was made with another build of the model {RUNS / name} than the present one."


def _faults_of_assets(folder: Path, locked: Mapping[str, str | None]) -> Iterator[str]:
    """The faults of the user's own files behind the links in a folder. The jobs that read images check these."""
    for name, sha256 in locked.items():
        file = resolve_links(folder / name)
        if not file.exists():
            yield f"{file}: missing, expected the asset that {folder} has adopted."
        elif name != "images" and (actual := sha256_of_path(file)) != sha256:
            yield f"{file}: its sha256 is {actual[:12]}, expected {str(sha256)[:12]} as adopted by {folder}."


def _unlisted_files(listing: Path, files: list[Path]) -> Iterator[str]:
    for path in files:
        yield f"{path}: {listing} does not list it, expected no such file; move it elsewhere or delete it."


# Shards of a run's images


def _faults_of_shards(folder: Path, specification: Specification | None, manifest: Manifest) -> Iterator[str]:
    """The faults of the manifests of a run's shards, and of the records of batches that these list."""
    records: set[str] = set()
    numbers_by_count: dict[int, set[int]] = {}
    is_complete = True
    for path in sorted((folder / SHARDS).iterdir()) if (folder / SHARDS).is_dir() else []:
        if path.name.startswith(".") or path.name.endswith(UNFINISHED_SUFFIXES):
            continue
        manifest_name = path.name.replace(PROVENANCE_SUFFIX, ".json")
        if not (number := SHARD.fullmatch(manifest_name)):
            yield from _unlisted_files(folder / MANIFEST, [path])
            continue
        if manifest_name != path.name:
            if not path.with_name(manifest_name).exists():
                yield f"{path.with_name(manifest_name)}: missing, expected the manifest of {path}."
            continue
        numbers_by_count.setdefault(int(number[2]), set()).add(int(number[1]))
        shard = yield from _read(read_manifest, path)
        if shard is None:
            is_complete = False
            continue
        yield from _faults_of_manifest(path, folder, shard, specification)
        yield from _faults_of_record(provenance_path(path), folder, shard)
        if shard.trained != manifest.trained:
            yield f"{path}: it was made with other builds of models than {folder / MANIFEST} lists."
        records |= shard.files.keys()
    if not any(len(numbers) == count for count, numbers in numbers_by_count.items()):
        yield f"{folder / SHARDS}: the manifest of a shard is missing, expected all shards of a complete run."
    if is_complete:
        yield from _faults_of_batches(folder, records, manifest)


def _faults_of_batches(folder: Path, listed_records: Collection[str], manifest: Manifest) -> Iterator[str]:
    """The faults of the records of batches: the shards' manifests must list all records, and these all images."""
    images: set[str] = set()
    is_complete = True
    for path in files_below(folder / BATCHES):
        if path.relative_to(folder).as_posix() not in listed_records:
            yield from _unlisted_files(folder / SHARDS, [path])
            continue
        record = yield from _read(read_batch, path)
        if record is None:
            is_complete = False
            continue
        if record.trained != manifest.trained:
            yield f"{path}: it was made with other builds of models than {folder / MANIFEST} lists."
        yield from _faults_of_files(path, folder, {f"{IMAGES}/{name}": sha for name, sha in record.images.items()})
        images |= record.images.keys()
    if is_complete:
        stray = [path for path in files_below(folder / IMAGES) if path.name not in images]
        yield from _unlisted_files(folder / BATCHES, stray)


# Tables, figures and gates


def _faults_of_product(products: Mapping[Path, list[Path]], path: Path) -> Iterator[str]:
    """The faults of a product, given the path of its manifest, which may be missing."""
    if is_held(path.with_suffix(".lease")):
        return
    if not path.exists():
        names = ", ".join(file.name for file in products[path])
        yield f"{path}: missing, expected the manifest of {names}; ask for the target again, or move these elsewhere."
        return
    content, record_path = (yield from _read(read_manifest, path)), provenance_path(path)
    if content is None:
        return
    record = yield from _faults_of_record(record_path, path.parent, content)
    specification_path = next(RUNS.glob(f"{content.stage}/*-{content.digest[:12]}/{SPECIFICATION}"), None)
    if specification_path is None:
        specification = record.specification if record is not None else None
        slug = specification.slug if specification is not None else "*"
        missing = RUNS / content.stage / f"{slug}-{content.digest[:12]}" / SPECIFICATION
        yield f"{missing}: missing, expected the specification of {path}; ask for the target again to restore it."
    else:
        specification = read_or_none(read_specification, specification_path)
    yield from _faults_of_manifest(path, path.parent, content, specification)
    if specification is not None:
        if path.stem != (product := specification.settings.get("name", path.stem)):
            yield f"{path}: it is the manifest of {product}, expected that of {path.stem}."
        yield from _faults_of_inputs(f"{path}: {path.stem}", specification, content)
    for name, seal in content.inputs.items():
        shown = read_or_none(read_manifest, RUNS / name / MANIFEST)
        if shown is not None and shown.seal != seal:
            yield f"{path}: {path.stem} shows another result of {RUNS / name} than the present one."
    own_files = {path.name, record_path.name, *content.files, *(record.records if record is not None else ())}
    yield from _unlisted_files(path, [file for file in products[path] if file.name not in own_files])


def _affected(products: list[Path], faulty: Collection[str]) -> Iterator[str]:
    """A sentence for each product that is made of runs with faults."""
    for path in products:
        record = read_or_none(read_provenance, provenance_path(path))
        behind = sorted(with_dependencies(record.specification.builds_on.values()) & set(faulty)) if record else []
        if behind:
            names = listed([str(RUNS / name) for name in behind])
            yield f"{path.with_suffix('')} was made from runs that have faults: {names}."
