"""Records as jobs write them, with values chosen by the tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corelib.runs.layout import RUNS
from corelib.runs.manifest import Manifest, ManifestRecord
from corelib.runs.provenance_record import Provenance
from corelib.runs.specification import Execution, Specification, digest_of

EXECUTION = Execution(batches_per_shard=8, checkpoint_seconds=1.0)


def specification(
    stage: str = "stage",
    slug: str = "slug",
    builds_on: Mapping[str, str] | None = None,
    inputs: Mapping[str, str] | None = None,
    **fields: Any,
) -> Specification:
    """A specification with the digest of its content.

    Args:
        stage, slug: stage and slug of the run.
        builds_on: names of the runs that it builds on, by role.
        inputs: digests of these runs, by role; by default the digests in their names.
        fields: values of further fields, in place of the defaults.
    """
    names = dict(builds_on or {})
    content: dict[str, Any] = {"stage": stage, "settings": {}, "threads": 1, "code": {"x.py": "0"}, "packages": {}}
    content["inputs"] = dict(inputs or {role: name.rpartition("-")[2] for role, name in names.items()})
    rest: dict[str, Any] = {"slug": slug, "builds_on": names, "after": {}, "places": {}, "execution": EXECUTION}
    for name, value in fields.items():
        (content if name in content else rest)[name] = value
    return Specification.sealed(**content, **{"digest": digest_of(content), **rest})


def name_of(planned: Specification) -> str:
    """The name of the run with a specification, whose slug must be valid in a path."""
    return f"{planned.stage}/{planned.slug}-{planned.digest[:12]}"


def manifest(
    folder: Path,
    files: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None,
    stage: str = "stage",
    digest: str = "0" * 64,
    trained: Mapping[str, str] | None = None,
) -> Manifest:
    """A manifest that is not stored in a file."""
    return Manifest.sealed(
        folder=folder,
        stage=stage,
        digest=digest,
        files=dict(files or {}),
        facts=dict(facts or {}),
        trained=dict(trained or {}),
        inputs={},
    )


def provenance(planned: Specification, made: ManifestRecord, **fields: Any) -> Provenance:
    """The provenance record of a job on some machine."""
    record: dict[str, Any] = {
        "specification": planned,
        "manifest": made,
        "version": "0.1.0",
        "commit": "c0ffee",
        "python": "3.11.0",
        "packages": {},
        "began": "2026-01-02T03:04:01.234+00:00",
        "host": "here",
        "node": None,
        "scheduler_job": None,
        "device": "cpu",
        "processor": "a processor",
        "machine": "x86_64",
        "visible_devices": None,
        "arithmetic": {},
        "threads": planned.threads,
        "finished": "2026-01-02T03:04:05.678+00:00",
        "wall_seconds": 4.444,
        "peak_memory_mib": 100,
        "records": {},
        "earlier_attempts": [],
        "log": [],
    }
    return Provenance.sealed(**{**record, **fields})


def manifest_record(planned: Specification) -> ManifestRecord:
    """A manifest of a run that lists no files."""
    empty: dict[str, Any] = {part: {} for part in ("files", "facts", "trained", "inputs")}
    return ManifestRecord.sealed(stage=planned.stage, digest=planned.digest, **empty)


def folder_of(planned: Specification) -> Path:
    """The folder of the run with a specification."""
    return RUNS / name_of(planned)
