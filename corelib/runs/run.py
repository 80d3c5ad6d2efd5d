"""Runs and their addresses: the address of a result is its content.

The folder of a run is `runs/STAGE/SLUG-DIGEST/`. The digest covers the leaves that the stage reads, its number of
threads, the code that it imports, the versions of the numerical packages that this code uses, and the digests of the
runs that it builds on. Code counts as its syntax tree without docstrings. Comments and formatting are therefore not
content, and the digest is the same in all versions of Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from corelib.runs.fingerprint import code_digests, package_versions
from corelib.runs.layout import MANIFEST, RUNS, run_name
from corelib.runs.specification import Execution, Specification, digest_of
from corelib.settings.section import Section


@dataclass(frozen=True)
class Run:
    """One run of a stage with everything that determines its result.

    `after`, `places` and `execution` are not content: the digest does not cover them.

    Attributes:
        stage: name of the stage, and of its folder below `runs/`.
        scripts: scripts of its rules; their import closure is the code of the stage.
        slug: description in words; part of the run's name, not of the digest.
        settings: the leaves that the stage reads.
        threads: number of CPU threads.
        inputs: the runs that it builds on, by role.
        after: the runs that must be complete before its job starts, but which it does not read, by role.
        places: paths of the user's own files, by the name of the link in its folder.
        execution: how the work is divided and saved.
    """

    stage: str
    scripts: tuple[Path, ...]
    slug: str
    settings: Section
    threads: int
    inputs: Mapping[str, Run] = field(default_factory=dict)
    after: Mapping[str, Run] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    execution: Execution = field(kw_only=True)

    @property
    def content(self) -> dict[str, Any]:
        """The values that the digest covers. They are large, so runs do not keep them."""
        return {
            "stage": self.stage,
            "settings": self.settings.model_dump(mode="json"),
            "threads": self.threads,
            "code": code_digests(*self.scripts),
            "packages": package_versions(*self.scripts),
            "inputs": {role: run.digest for role, run in self.inputs.items()},
        }

    @cached_property
    def digest(self) -> str:
        """The sha256 of the content, in hexadecimal."""
        return digest_of(self.content)

    @cached_property
    def name(self) -> str:
        """`STAGE/SLUG-DIGEST`, below `runs/`."""
        return run_name(self.stage, self.slug, self.digest)

    @property
    def folder(self) -> Path:
        """The folder of the run, relative to the working directory."""
        return RUNS / self.name

    @property
    def manifest(self) -> Path:
        """The file that exists if and only if the run is complete."""
        return self.folder / MANIFEST

    @property
    def specification(self) -> Specification:
        """The specification of the run, which its job reads from `specification.json` in its folder.

        It is made anew each time, since a plan may have thousands of runs and needs each specification once.
        """
        return Specification.sealed(
            **self.content,
            slug=self.slug,
            digest=self.digest,
            builds_on={role: run.name for role, run in self.inputs.items()},
            after={role: run.name for role, run in self.after.items()},
            places=dict(self.places),
            execution=self.execution,
        )

    def with_all_inputs(self) -> dict[str, Run]:
        """This run and every run that must be complete before it, by name."""
        runs: dict[str, Run] = {}
        queue: list[Run] = [self]
        while queue:
            run = queue.pop()
            if run.name not in runs:
                runs[run.name] = run
                queue.extend([*run.inputs.values(), *run.after.values()])
        return runs
