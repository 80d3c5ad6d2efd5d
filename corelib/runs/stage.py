"""What every stage is given and gives back: `stage(settings, work) -> Outcome`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corelib.files.hashing import sha256_of_text
from corelib.runs.manifest import Manifest


@dataclass(frozen=True)
class Work:
    """One stage of one run, as its job sees it.

    Attributes:
        folder: where the stage writes its files; everything in it that no manifest names is unfinished state.
        digest: the address of the run.
        inputs: the manifests it builds on, by role (`"images"`, `"pipeline"`, ...).
        threads: how many CPU threads it computes with; sums depend on how they are split.
        checkpoint_seconds: how often unfinished state is saved; changes no result.
        trained: the seals of the trained models that it builds on, by the names of their runs. Trained again on another
            device, a model has the same address and other bits.
    """

    folder: Path
    digest: str
    inputs: Mapping[str, Manifest]
    threads: int = 1
    checkpoint_seconds: float = 60.0
    trained: Mapping[str, str] = field(default_factory=dict)

    @property
    def checkpoint(self) -> Path:
        """Where unfinished state lies until the manifest is written."""
        return self.folder / "checkpoint.pt"

    @property
    def owner(self) -> str:
        """Whose unfinished state it is: that of this run, on these very models."""
        return sha256_of_text(" ".join([self.digest, *sorted(self.trained.values())]))


@dataclass(frozen=True)
class Outcome:
    """What a stage made.

    Attributes:
        files: files and folders, relative to the stage's own, for which the manifest vouches.
        facts: what later stages read.
        records: files that say when and where something was made. The provenance record vouches for these, since the
            manifests of equal results are equal.
    """

    files: list[str]
    facts: Mapping[str, Any] = field(default_factory=dict)
    records: list[str] = field(default_factory=list)
