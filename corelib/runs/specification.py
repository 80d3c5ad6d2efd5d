"""Specifications: everything that determines the result of a run, in one file that its job reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import PositiveFloat, PositiveInt, model_validator

from corelib.errors import ArtefactError
from corelib.files.hashing import sha256_of_text
from corelib.files.sealed_json import SealedRecord, read_record
from corelib.runs.layout import RunName, run_name
from corelib.settings.section import Section

DIGESTED_FIELDS = ("stage", "settings", "threads", "code", "packages", "inputs")
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
        digest: sha256 of the fields in `DIGESTED_FIELDS`.
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

    @property
    def name(self) -> str:
        """The name of the run."""
        return run_name(self.stage, self.slug, self.digest)

    def has_its_digest(self) -> bool:
        """Whether the digest matches the content."""
        return self.digest == digest_of({key: getattr(self, key) for key in DIGESTED_FIELDS})


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


def digest_of(content: Mapping[str, Any]) -> str:
    """The sha256 of a specification's content in canonical JSON."""
    digested = {key: content[key] for key in DIGESTED_FIELDS}
    return sha256_of_text(json.dumps(digested, sort_keys=True, separators=(",", ":"), ensure_ascii=True))
