"""Specifications: everything that determines the result of a run, in one file that its job reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import PositiveFloat, PositiveInt, ValidationError, model_validator

from corelib.errors import ArtefactError
from corelib.files.hashing import sha256_of_text
from corelib.files.sealed_json import SealedRecord, read_record
from corelib.runs.layout import MANIFEST, RUNS, RunName
from corelib.runs.manifest import Manifest, read_manifest
from corelib.runs.stages import STAGES, TRAINED
from corelib.settings.section import Section

DIGESTED = ("stage", "settings", "threads", "code", "packages", "inputs")
"""The fields of a specification that determine the result. Its digest covers these fields."""


class Execution(Section):
    """How the work of a run is divided and saved; no result and no address depends on it.

    Attributes:
        batches_per_shard: number of sampling batches in a shard.
        checkpoint_seconds: minimum time between two checkpoints, in seconds.
    """

    batches_per_shard: PositiveInt
    checkpoint_seconds: PositiveFloat


class Specification(SealedRecord):
    """The specification of a run.

    Attributes:
        stage: name of the stage.
        slug: description in words, part of the run's name.
        digest: sha256 of the fields in `DIGESTED`.
        settings: the configuration leaves that the stage reads, as JSON.
        threads: number of CPU threads.
        code: sha256 of each module and script, by name.
        packages: version of each numerical package, by name.
        inputs: digests of the runs that it builds on, by role.
        builds_on: names of the same runs, by role.
        after: names of the runs that must be complete before its job starts, by role.
        places: paths of the user's own files, by the name of the link in the run's folder.
        execution: how the work is divided and saved.
    """

    KIND: ClassVar[str] = "specification"

    stage: str
    slug: str
    digest: str
    settings: dict[str, Any]
    threads: PositiveInt
    code: dict[str, str]
    packages: dict[str, str]
    inputs: dict[str, str]
    builds_on: dict[str, RunName]
    after: dict[str, RunName]
    places: dict[str, str]
    execution: Execution

    @model_validator(mode="after")
    def _roles_agree(self) -> Self:
        if self.builds_on.keys() != self.inputs.keys():
            raise ValueError(
                f"`inputs` and `builds_on` disagree: {sorted(self.inputs)} against {sorted(self.builds_on)}"
            )
        return self

    def has_its_digest(self) -> bool:
        """Whether the digest matches the content."""
        return self.digest == digest_of({key: getattr(self, key) for key in DIGESTED})


def read_specification(path: Path) -> Specification:
    """Read a specification.

    Raises `ArtefactError` if it is missing or malformed, or if its digest or its seal does not match its content. The
    digest covers the fields that determine the result. The seal covers all fields, including names of runs, places, and
    execution.
    """
    specification = read_record(path, Specification)
    if not specification.has_its_digest():
        raise ArtefactError(f"{path}: its digest does not match its content; delete it and ask for the target again.")
    return specification


def settings_in(specification: Specification) -> Section:
    """The typed settings of a specification.

    Raises `ArtefactError` if they do not fit the stage in this version of the code.
    """
    try:
        return STAGES[specification.stage].settings.model_validate_json(json.dumps(specification.settings))
    except (KeyError, ValidationError):
        raise ArtefactError(
            f"{RUNS / specification.stage / specification.slug}: its settings do not fit the stage "
            f"{specification.stage} in this version of the code; ask for the table or figure instead, to plan the run "
            "with this code."
        ) from None


def read_inputs(specification: Specification) -> dict[str, Manifest]:
    """The manifests of the runs that a run builds on, by role. Raises `ArtefactError` as `read_input` does."""
    return {role: read_input(specification, role) for role in specification.builds_on}


def trained_behind(specification: Specification, inputs: Mapping[str, Manifest]) -> dict[str, str]:
    """The seal of every trained model that a run builds on, directly or indirectly, by the name of the model's run.

    Raises `ArtefactError` if two of its inputs were made with different builds of the same model.
    """
    names = specification.builds_on
    uses = [(names[role], names[role], found.seal) for role, found in inputs.items() if found.stage in TRAINED]
    uses += [(names[role], model, seal) for role, found in inputs.items() for model, seal in found.trained.items()]
    models: dict[str, tuple[str, str]] = {}
    for name, model, seal in uses:
        first, expected = models.setdefault(model, (name, seal))
        if seal != expected:
            inconsistent = str(RUNS / name) if first == model else f"{RUNS / first} and {RUNS / name}"
            raise ArtefactError(
                f"{inconsistent}: the inputs of {specification.slug} were built from different trainings of "
                f"{RUNS / model}; delete the runs that `python -m corelib verify` reports as made with another build, "
                "and ask for the target again."
            )
    return {model: seal for model, (_, seal) in models.items()}


def read_input(specification: Specification, role: str) -> Manifest:
    """The manifest of the run that a run builds on in a role.

    Raises `ArtefactError` if there is none, or if its digest is not the one in the specification.
    """
    if role not in specification.builds_on:
        raise ArtefactError(f"{specification.slug}: it builds on no run in the role `{role}`, expected one.")
    manifest = read_manifest(RUNS / specification.builds_on[role] / MANIFEST)
    if manifest.digest != (expected := specification.inputs[role]):
        raise ArtefactError(
            f"{manifest.folder / MANIFEST}: it is the manifest of the run {manifest.digest[:12]}, expected "
            f"{expected[:12]} as {role}; delete {manifest.folder} and ask for the target again."
        )
    return manifest


def digest_of(content: Mapping[str, Any]) -> str:
    """The sha256 of a specification's content in canonical JSON."""
    digested = {key: content[key] for key in DIGESTED}
    return sha256_of_text(json.dumps(digested, sort_keys=True, separators=(",", ":"), ensure_ascii=True))
