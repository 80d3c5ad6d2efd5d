"""The interface of stages: `stage(settings, context) -> StageResult`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corelib.files.hashing import sha256_of_text
from corelib.runs.manifest import Manifest


@dataclass(frozen=True)
class StageContext:
    """The context in which a job runs a stage.

    Attributes:
        folder: folder in which the stage writes its files. Files in it that no manifest lists are unfinished state.
        digest: digest of the run.
        inputs: manifests of the runs that it builds on, by role (`"images"`, `"pipeline"`, ...).
        threads: number of CPU threads; the rounding of sums depends on it.
        checkpoint_seconds: minimum time between two checkpoints, in seconds; changes no result.
        trained: seals of the trained models that it builds on, by the names of their runs. A model that is retrained on
            another device has the same address but other bits.
    """

    folder: Path
    digest: str
    inputs: Mapping[str, Manifest]
    threads: int = 1
    checkpoint_seconds: float = 60.0
    trained: Mapping[str, str] = field(default_factory=dict)

    @property
    def checkpoint(self) -> Path:
        """The path of the checkpoint, which exists until the manifest is written."""
        return self.folder / "checkpoint.pt"

    @property
    def owner(self) -> str:
        """Identifies the owner of unfinished state: this run with these builds of the models."""
        return sha256_of_text(" ".join([self.digest, *sorted(self.trained.values())]))


@dataclass(frozen=True)
class StageResult:
    """The result of a stage.

    Attributes:
        files: files and folders that the manifest lists, relative to the stage's folder.
        facts: values that later stages read.
        records: files that describe the computation (when, where), not the result. The provenance record lists them,
            because equal results must have equal manifests.
    """

    files: list[str]
    facts: Mapping[str, Any] = field(default_factory=dict)
    records: list[str] = field(default_factory=list)
