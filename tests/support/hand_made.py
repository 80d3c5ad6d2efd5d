"""Write runs and products as jobs write them, without computing anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support import records

from corelib.files.hashing import sha256_of_path
from corelib.files.sealed_json import write_record
from corelib.runs.layout import MANIFEST, RESULTS, RUNS, SPECIFICATION, slugify
from corelib.runs.manifest import manifest_content, read_manifest
from corelib.runs.provenance_record import provenance_path
from corelib.runs.specification import read_specification
from corelib.runs.stage_registry import PRODUCTS
from corelib.sampling.batch_record import BatchRecord


def write_manifest(
    path: Path, folder: Path, stage: str, digest: str, files: list[str], facts: Mapping[str, Any]
) -> None:
    """Write a manifest of files (or folders) of a stage to `path`."""
    write_record(path, manifest_content(folder, stage, digest, files, facts, {}, {}))


def plan_run(stage: str, slug: str, settings: Mapping[str, Any] | None = None, **builds_on: str) -> str:
    """Write the specification of a run that builds on others, and return the name of the run."""
    inputs = {role: read_specification(RUNS / name / SPECIFICATION).digest for role, name in builds_on.items()}
    chosen = {"is": slug, **(settings or {})}
    planned = records.specification(stage, slug, builds_on, inputs, settings=chosen)
    name = f"{stage}/{slugify(slug)}-{planned.digest[:12]}"
    write_record(RUNS / name / SPECIFICATION, planned)
    return name


def complete_run(name: str, trained: Mapping[str, str] | None = None, **files: str) -> str:
    """Complete a planned run with files, given by name (without the suffix) and content, and return the run's name."""
    folder = RUNS / name
    for file, text in files.items():
        (folder / f"{file}.txt").write_text(text)
    write_records(folder / MANIFEST, folder, name, [f"{file}.txt" for file in files], trained or {})
    return name


def write_run(stage: str, slug: str, settings: Mapping[str, Any] | None = None, **builds_on: str) -> str:
    """Write a complete run with one file, and return its name."""
    trained: dict[str, str] = {}
    for below in builds_on.values():
        manifest = read_manifest(RUNS / below / MANIFEST)
        trained |= manifest.trained
        if below.startswith("unlearning/"):
            trained[below] = manifest.seal
    return complete_run(plan_run(stage, slug, settings, **builds_on), trained, made=f"{stage} {slug}")


def write_samples(slug: str, **builds_on: str) -> str:
    """Write a complete run of four images in two batches and two shards, and return its name."""
    name = plan_run("samples", slug, **builds_on)
    folder, models = RUNS / name, [below for below in builds_on.values() if below.startswith("unlearning/")]
    trained = {model: read_manifest(RUNS / model / MANIFEST).seal for model in models}
    (folder / "images").mkdir()
    for batch in range(2):
        images = [f"{number}.jpg" for number in (2 * batch, 2 * batch + 1)]
        for image in images:
            (folder / "images" / image).write_text(f"{slug} {image}")
        hashes = {image: sha256_of_path(folder / "images" / image) for image in images}
        record = f"batches/{batch:05d}.json"
        write_record(folder / record, BatchRecord.sealed(images=hashes, flagged=[], trained=trained))
        write_records(folder / f"shards/{batch:04d}-of-0002.json", folder, name, [record], trained)
    write_records(folder / MANIFEST, folder, name, ["images"], trained)
    return name


def write_product(place: Path, product: str, **builds_on: str) -> Path:
    """Write a table, a figure or a gate's report to a folder of results, and return the path of its manifest."""
    kind = next(stage for stage in PRODUCTS if product.startswith(stage.removesuffix("s")))
    study = "paper" if place == RESULTS else place.name
    settings = {} if product == "gate" else {"name": product}
    name = plan_run(kind, f"{study}-{product}", settings, **builds_on)
    endings = {"tables": ("csv", "md", "tex", "cells.csv"), "figures": ("png",), "gates": ("csv", "md")}[kind]
    files = [f"{product}.{ending}" for ending in endings]
    recorded = [f"{product}.provenance.csv"] if kind == "tables" else []
    place.mkdir(parents=True, exist_ok=True)
    for file in (*files, *recorded):
        (place / file).write_text(f"{name} {file}")
    trained: dict[str, str] = {}
    for below in builds_on.values():
        trained |= read_manifest(RUNS / below / MANIFEST).trained
    write_records(place / f"{product}.json", place, name, files, trained, recorded)
    return place / f"{product}.json"


def write_records(
    path: Path, folder: Path, name: str, files: list[str], trained: Mapping[str, str], recorded: list[str] | None = None
) -> None:
    """Write a manifest of files in a folder, and the provenance record beside it."""
    specification = read_specification(RUNS / name / SPECIFICATION)
    seals = {}
    if path.name != MANIFEST and specification.stage in PRODUCTS:
        seals = {below: read_manifest(RUNS / below / MANIFEST).seal for below in specification.builds_on.values()}
    manifest = manifest_content(folder, specification.stage, specification.digest, files, {}, trained, seals)
    hashes = {file: sha256_of_path(folder / file) for file in recorded or []}
    write_record(provenance_path(path), records.provenance(specification, manifest, records=hashes))
    write_record(path, manifest)


def write_study(place: Path, method: str = "core") -> dict[str, str]:
    """Write a model, its images, their evaluation, and a table and a figure; return the names of the runs by stage."""
    runs = {"pipeline": write_run("pipeline", "miniature")}
    runs["unlearning"] = write_run("unlearning", f"{method}-forget01", pipeline=runs["pipeline"])
    runs["samples"] = write_samples(f"{method}-forget01", pipeline=runs["pipeline"], delta=runs["unlearning"])
    runs["predictions"] = write_run("predictions", f"{method}-forget01", samples=runs["samples"])
    runs["cells"] = write_run("cells", f"{method}-forget01", predictions=runs["predictions"])
    write_product(place, "table1", core=runs["cells"])
    write_product(place, "figure2", core=runs["samples"])
    return runs
