"""Staleness: whether the files on disk are those that a study requires, judged by content alone.

An existing table may have been edited, copied from elsewhere, written by a job of an earlier configuration, or made
from models that have been retrained since. Neither modification times nor Snakemake's records reveal this. Products and
runs are therefore judged by their manifests, their bytes, and the manifests of the runs from which they were made.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from corelib.errors import ArtefactError
from corelib.files.hashing import sha256_of_path
from corelib.files.paths import path_inside
from corelib.files.sealed_json import bytes_match, read_or_none
from corelib.runs.layout import MANIFEST, RUNS, SHARDS
from corelib.runs.manifest import ManifestRecord, read_manifest
from corelib.runs.provenance_record import PROVENANCE_SUFFIX, provenance_path, read_provenance
from corelib.sampling.collection import is_complete as is_whole_batch

SAMPLES = "samples"

IS_MISSING, IS_DAMAGED, IS_OTHER = "is missing", "is damaged", "belongs to another configuration or to other code"
"""Reasons why a manifest is not the required one; each follows its path."""

Node = TypeVar("Node", bound="RunNode")


class RunNode(Protocol):
    """A run as the assessment needs it: its address, and the runs that it builds on or waits for."""

    @property
    def name(self) -> str:
        """`STAGE/SLUG-DIGEST`."""

    @property
    def stage(self) -> str:
        """Name of the stage."""

    @property
    def digest(self) -> str:
        """The sha256 of its content."""

    @property
    def inputs(self: Node) -> Mapping[str, Node]:
        """The runs that it builds on, by role."""

    @property
    def after(self: Node) -> Mapping[str, Node]:
        """The runs that it waits for, by role."""


@dataclass
class Assessment:
    """The products, runs and shards that must be built for some products.

    Attributes:
        products: reason why a product must be built, by the path of its manifest.
        missing: names of the runs that must be built and have no manifest.
        stale: reason why a run must be rebuilt although it has a manifest, by its name.
        shards: reason why a shard must be rebuilt, by the path of its manifest.
    """

    products: dict[Path, str] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    stale: dict[str, str] = field(default_factory=dict)
    shards: dict[Path, str] = field(default_factory=dict)

    def is_rebuilt(self, name: str) -> bool:
        """Whether a run will be built, for the first time or again."""
        return name in self.missing or name in self.stale

    def add(self, other: Assessment) -> None:
        """Add the entries of another assessment to this one."""
        self.products |= other.products
        self.missing |= other.missing
        self.stale |= other.stale
        self.shards |= other.shards

    def __len__(self) -> int:
        return len(self.products) + len(self.missing) + len(self.stale) + len(self.shards)


def assess(products: Mapping[Path, Node], runs: Iterable[Node] = ()) -> Assessment:
    """Find out which products, runs and shards must be built for some targets.

    A run is judged only if it is a target, or if a run or product that must be built reads it. All its files are then
    hashed, so that damage is found before the first job starts. Results of a model that must be retrained are rebuilt
    too, because the model may get other weights on another device.

    Args:
        products: the runs of tables, figures and reports, by the path of their manifest.
        runs: runs that are targets themselves.
    """
    assessment = Assessment()
    fault_of = functools.cache(run_fault)  # reads many files
    while True:  # repeat until nothing is added: a stale model may be found after the results of that model
        count_before, visited = len(assessment), set[str]()
        for path, product in products.items():
            reason = (
                assessment.products.get(path) or product_fault(path, product) or _fault_of_retraining(path, assessment)
            )
            if reason is not None:
                assessment.products[path] = reason
                _assess_runs([*product.inputs.values(), *product.after.values()], assessment, fault_of, visited)
        _assess_runs(runs, assessment, fault_of, visited)
        if len(assessment) == count_before:
            return assessment


def _assess_runs(
    runs: Iterable[RunNode], assessment: Assessment, fault_of: Callable[[Path, str, str], str | None], visited: set[str]
) -> None:
    """Add to the assessment those of the runs that must be built, and recursively their inputs that must be built."""
    queue = list(runs)
    while queue:
        run = queue.pop()
        if run.name in visited:
            continue
        visited.add(run.name)
        folder = RUNS / run.name
        if (folder / MANIFEST).exists():
            reason = fault_of(folder, run.stage, run.digest) or _fault_of_retraining(folder / MANIFEST, assessment)
            if reason is None:
                continue
            assessment.stale.setdefault(run.name, reason)
        else:
            assessment.missing.add(run.name)
        if run.stage == SAMPLES:
            _assess_shards(folder, run.digest, assessment)
        queue.extend([*run.inputs.values(), *run.after.values()])


def product_fault(manifest: Path, run: RunNode) -> str | None:
    """Why a product at a stable name is not the product of a run; None if it is.

    Compares its digest, its bytes, the builds of the models behind it, and the results from which it was made.
    """
    content = _manifest_at(manifest)
    if content is None:
        return f"{manifest} {IS_DAMAGED if manifest.exists() else IS_MISSING}"
    if content.digest != run.digest:
        return f"{manifest} {IS_OTHER}"
    return (
        _fault_of_files(manifest, content.files)
        or _fault_of_record(manifest, content)
        or _fault_of_models(content)
        or _fault_of_inputs(content)
    )


def run_fault(folder: Path, stage: str, digest: str) -> str | None:
    """Why the folder of a run does not contain the valid result of that run; None if it does."""
    manifest = _manifest_at(folder / MANIFEST)
    if manifest is None:
        return f"{folder / MANIFEST} {IS_DAMAGED}"
    if (manifest.stage, manifest.digest) != (stage, digest):
        return f"{folder / MANIFEST} belongs to another run"
    return _fault_of_files(folder / MANIFEST, manifest.files) or _fault_of_models(manifest)


def _assess_shards(folder: Path, digest: str, assessment: Assessment) -> None:
    """Add to the assessment the shards of a run whose batches are damaged or from another build of a model."""
    for path in sorted((folder / SHARDS).glob("*-of-*.json")):
        if path.name.endswith(PROVENANCE_SUFFIX) or path in assessment.shards:
            continue
        manifest = _manifest_at(path)
        if manifest is None or manifest.digest != digest:
            assessment.shards[path] = f"{path} {IS_DAMAGED}"
        elif reason := _fault_of_models(manifest) or _fault_of_retraining(path, assessment):
            assessment.shards[path] = reason
        elif not all(is_whole_batch(folder / record, manifest.trained) for record in manifest.files):
            assessment.shards[path] = f"an image or a record of {path} is missing or damaged"


def _fault_of_retraining(path: Path, assessment: Assessment) -> str | None:
    """The first model behind a manifest that will be retrained."""
    manifest = _manifest_at(path)
    for model in manifest.trained if manifest else ():
        if assessment.is_rebuilt(model):
            return f"the model {RUNS / model} behind it must be retrained"
    return None


def _fault_of_record(manifest: Path, content: ManifestRecord) -> str | None:
    """The fault of the provenance record of a product, or of the files that it lists."""
    path = provenance_path(manifest)
    record = read_or_none(read_provenance, path)
    if record is None:
        return f"{path} {IS_DAMAGED if path.exists() else IS_MISSING}"
    if not bytes_match(path, record) or record.manifest.seal != content.seal:
        return f"{path} {IS_DAMAGED}"
    return _fault_of_files(manifest, record.records)


def _fault_of_files(manifest: Path, files: Mapping[str, str]) -> str | None:
    """The first file beside a manifest that is missing or whose sha256 differs from that in `files`."""
    for name, sha256 in files.items():
        try:
            path = path_inside(manifest.parent, name)
            if not path.exists():
                return f"{path} is missing"
            if sha256_of_path(path) != sha256:
                return f"{path} has changed since it was written"
        except (ArtefactError, OSError):
            return f"{manifest.parent / name} has changed since it was written"
    return None


def _fault_of_models(manifest: ManifestRecord) -> str | None:
    """The first trained model behind a manifest that has been retrained since."""
    model = _other_build(manifest.trained)
    return f"the model {RUNS / model} has been retrained since" if model else None


def _fault_of_inputs(manifest: ManifestRecord) -> str | None:
    """The first run from which a product was made and which has another result now."""
    name = _other_build(manifest.inputs)
    return f"{RUNS / name} has been rebuilt since, with another result" if name else None


def _other_build(seals: Mapping[str, str]) -> str | None:
    """The first of some runs that is present with another seal."""
    for name, seal in seals.items():
        manifest = _manifest_at(RUNS / name / MANIFEST)
        if manifest is not None and manifest.seal != seal:
            return name
    return None


def _manifest_at(path: Path) -> ManifestRecord | None:
    """The manifest in a file; None if it is missing, damaged or edited."""
    manifest = read_or_none(read_manifest, path)
    return manifest if manifest is not None and bytes_match(path, manifest) else None
