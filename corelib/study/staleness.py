"""Whether what lies on the disk is what a study asks for, judged by content alone.

A table that lies in its place may have been edited, copied from elsewhere, written by a job of an earlier
configuration, or made from models that have been trained again since. Ages of files say nothing of this, and neither
does Snakemake's memory. What a product or a run is, and what it should be, is read from its manifest, its bytes and
the manifests of what it was made from.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from corelib.errors import ArtefactError
from corelib.files.hashing import sha256_of
from corelib.files.paths import below
from corelib.files.sealed_json import if_readable, is_as_written
from corelib.runs.layout import MANIFEST, RUNS, SHARDS
from corelib.runs.manifest import ManifestRecord, read_manifest
from corelib.runs.provenance import ENDING, provenance_path, read_provenance
from corelib.sampling.collection import is_whole as is_whole_batch

SAMPLES = "samples"

MISSING, DAMAGED, OTHER = "is missing", "is damaged", "is that of another configuration or of other code"
"""What is said of a manifest."""

Node = TypeVar("Node", bound="Needed")


class Needed(Protocol):
    """A run as the assessment sees it: its address and what it builds on or waits for."""

    @property
    def name(self) -> str:
        """`STAGE/SLUG-DIGEST`."""

    @property
    def stage(self) -> str:
        """Name of the stage."""

    @property
    def digest(self) -> str:
        """Sha256 of its content."""

    @property
    def inputs(self: Node) -> Mapping[str, Node]:
        """The runs that it builds on, by role."""

    @property
    def after(self: Node) -> Mapping[str, Node]:
        """The runs that it waits for, by role."""


@dataclass
class Assessment:
    """What has to be made for some products.

    Attributes:
        products: those that are missing or not what they should be, by the path of their manifest, with the reason.
        missing: names of the runs that have to be made and have no manifest.
        stale: names of the runs that have to be made again although they have a manifest, with the reason.
        shards: paths of the manifests of shards that have to be made again, with the reason.
    """

    products: dict[Path, str] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    stale: dict[str, str] = field(default_factory=dict)
    shards: dict[Path, str] = field(default_factory=dict)

    def is_made(self, name: str) -> bool:
        """Whether a run is going to be made, for the first time or again."""
        return name in self.missing or name in self.stale

    def add(self, other: Assessment) -> None:
        """Take over what another assessment has found."""
        self.products |= other.products
        self.missing |= other.missing
        self.stale |= other.stale
        self.shards |= other.shards

    def __len__(self) -> int:
        return len(self.products) + len(self.missing) + len(self.stale) + len(self.shards)


def assess(products: Mapping[Path, Node], runs: Iterable[Node] = ()) -> Assessment:
    """Find out what has to be made for some products, and for some runs that are asked for by themselves.

    A run is looked at only if something that has to be made reads it; then all its files are hashed, so that damage is
    found before the first job starts. What was made with a model that has to be trained again is made again, too:
    trained on another device the model has other weights.

    Args:
        products: the runs of tables, figures and reports, by the path of their manifest.
        runs: other runs that are asked for.
    """
    found = Assessment()
    fault_of = functools.cache(fault_of_run)  # it reads many files
    while True:  # a model that has to be trained again may be found after what was made with it
        before, visited = len(found), set[str]()
        for path, product in products.items():
            reason = found.products.get(path) or fault_of_product(path, product) or _trained_again(path, found)
            if reason is not None:
                found.products[path] = reason
                _assess_runs([*product.inputs.values(), *product.after.values()], found, fault_of, visited)
        _assess_runs(runs, found, fault_of, visited)
        if len(found) == before:
            return found


def _assess_runs(
    runs: Iterable[Needed], found: Assessment, fault_of: Callable[[Path, str, str], str | None], visited: set[str]
) -> None:
    """Note which of some runs, and of what they build on, have to be made; what a whole run builds on is not read."""
    queue = list(runs)
    while queue:
        run = queue.pop()
        if run.name in visited:
            continue
        visited.add(run.name)
        folder = RUNS / run.name
        if (folder / MANIFEST).exists():
            reason = fault_of(folder, run.stage, run.digest) or _trained_again(folder / MANIFEST, found)
            if reason is None:
                continue
            found.stale.setdefault(run.name, reason)
        else:
            found.missing.add(run.name)
        if run.stage == SAMPLES:
            _assess_shards(folder, run.digest, found)
        queue.extend([*run.inputs.values(), *run.after.values()])


def fault_of_product(manifest: Path, run: Needed) -> str | None:
    """Why a product at a stable name is not what a run would make; None if it is.

    Its bytes, its digest, the builds of the models behind it and those of everything it was made from are compared.
    """
    made = _manifest_at(manifest)
    if made is None:
        return f"{manifest} {DAMAGED if manifest.exists() else MISSING}"
    if made.digest != run.digest:
        return f"{manifest} {OTHER}"
    return (
        _fault_of_files(manifest, made.files)
        or _fault_of_record(manifest, made)
        or _fault_of_models(made)
        or _fault_of_inputs(made)
    )


def fault_of_run(folder: Path, stage: str, digest: str) -> str | None:
    """Why what lies in a run's folder cannot be read as that run; None if it can."""
    made = _manifest_at(folder / MANIFEST)
    if made is None:
        return f"{folder / MANIFEST} {DAMAGED}"
    if (made.stage, made.digest) != (stage, digest):
        return f"{folder / MANIFEST} is that of another run"
    return _fault_of_files(folder / MANIFEST, made.files) or _fault_of_models(made)


def _assess_shards(folder: Path, digest: str, found: Assessment) -> None:
    """Note the shards of a run whose batches are not whole any more, or belong to another build of the model."""
    for path in sorted((folder / SHARDS).glob("*-of-*.json")):
        if path.name.endswith(ENDING) or path in found.shards:
            continue
        made = _manifest_at(path)
        if made is None or made.digest != digest:
            found.shards[path] = f"{path} {DAMAGED}"
        elif reason := _fault_of_models(made) or _trained_again(path, found):
            found.shards[path] = reason
        elif not all(is_whole_batch(folder / record, made.trained) for record in made.files):
            found.shards[path] = f"an image or a record of {path} is missing or damaged"


def _trained_again(manifest: Path, found: Assessment) -> str | None:
    """Whether something was made with a model that is going to be trained again."""
    made = _manifest_at(manifest)
    for model in made.trained if made else ():
        if found.is_made(model):
            return f"the model {RUNS / model} behind it has to be trained again"
    return None


def _fault_of_record(manifest: Path, made: ManifestRecord) -> str | None:
    """The fault of the provenance record of a product, or of the files that it vouches for."""
    path = provenance_path(manifest)
    record = if_readable(read_provenance, path)
    if record is None:
        return f"{path} {DAMAGED if path.exists() else MISSING}"
    if not is_as_written(path, record) or record.manifest.seal != made.seal:
        return f"{path} {DAMAGED}"
    return _fault_of_files(manifest, record.records)


def _fault_of_files(manifest: Path, files: Mapping[str, str]) -> str | None:
    """The first file beside a manifest that is not as somebody vouches for it."""
    for name, sha256 in files.items():
        try:
            path = below(manifest.parent, name)
            if not path.exists():
                return f"{path} is missing"
            if sha256_of(path) != sha256:
                return f"{path} is not as it was written"
        except (ArtefactError, OSError):
            return f"{manifest.parent / name} is not as it was written"
    return None


def _fault_of_models(made: ManifestRecord) -> str | None:
    """The first trained model of which another build lies here than the one behind a manifest."""
    model = _other_build(made.trained)
    return f"the model {RUNS / model} has been trained again since" if model else None


def _fault_of_inputs(made: ManifestRecord) -> str | None:
    """The first run that a product was made from and that has other content by now."""
    name = _other_build(made.inputs)
    return f"{RUNS / name} has been made again since, with another result" if name else None


def _other_build(seals: Mapping[str, str]) -> str | None:
    """The first of some runs that lies here with another seal."""
    for name, seal in seals.items():
        lies = _manifest_at(RUNS / name / MANIFEST)
        if lies is not None and lies.seal != seal:
            return name
    return None


def _manifest_at(path: Path) -> ManifestRecord | None:
    """The manifest in a file; None if it is missing, or not as it was written."""
    made = if_readable(read_manifest, path)
    return made if made is not None and is_as_written(path, made) else None
