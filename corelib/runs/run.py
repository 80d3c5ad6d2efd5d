"""The address of a result is its content.

A run lies in `runs/STAGE/SLUG-DIGEST/`. The digest is taken over the leaves that the stage reads, its thread count,
the code it imports, the versions of the numerical packages that this code uses, and the addresses of what it builds
on. Code counts as its syntax tree without docstrings: comments and formatting are not content, and no version of Python
writes the tree in another way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from corelib.runs.fingerprint import code_of, packages_of
from corelib.runs.layout import MANIFEST, RUN, RUNS, SPECIFICATION
from corelib.runs.specification import Execution, Specification, digest_of
from corelib.settings.section import Section


@dataclass(frozen=True)
class Run:
    """One stage of the study with everything that decides its result.

    Attributes:
        stage: the name of the stage, and of its folder below `runs/`.
        scripts: those of its rules, whose import closure is the stage's code.
        slug: what it is, in words; part of the address for people, not of the digest.
        settings: the leaves that the stage reads.
        threads: CPU threads it computes with.
        inputs: the runs it builds on, by role.
        after: the runs that have to be complete before its job starts, by role, though it reads nothing of them; no
            content.
        places: where the user's own files lie, by the name under which its folder links to them; no content.
        execution: how its work is divided and saved; no content.
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

    @cached_property
    def content(self) -> dict[str, Any]:
        """Exactly what the digest is taken over."""
        return {
            "stage": self.stage,
            "settings": self.settings.model_dump(mode="json"),
            "threads": self.threads,
            "code": code_of(*self.scripts),
            "packages": packages_of(*self.scripts),
            "inputs": {role: run.digest for role, run in self.inputs.items()},
        }

    @cached_property
    def digest(self) -> str:
        """The content's sha256, hexadecimal."""
        return digest_of(self.content)

    @cached_property
    def name(self) -> str:
        """`STAGE/SLUG-DIGEST`, below `runs/`."""
        return f"{self.stage}/{slugged(self.slug)}-{self.digest[:12]}"

    @property
    def folder(self) -> Path:
        """Where the run lies, relative to the working directory."""
        return RUNS / self.name

    @property
    def manifest(self) -> Path:
        """The file that exists if and only if the run is complete."""
        return self.folder / MANIFEST

    @cached_property
    def specification(self) -> Specification:
        """What the run's job reads, alone, from `specification.json` in its folder."""
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
        """This run and every run that has to be complete before it, by name."""
        found: dict[str, Run] = {}
        queue: list[Run] = [self]
        while queue:
            run = queue.pop()
            if run.name not in found:
                found[run.name] = run
                queue.extend([*run.inputs.values(), *run.after.values()])
        return found


def slugs_of_runs() -> dict[tuple[str, str], str]:
    """What the runs that lie here are called: the slug, by stage and beginning of the digest.

    Equal runs may have been planned under several names; the first that is complete has it.
    """
    found: dict[tuple[str, str], str] = {}
    folders = sorted(RUNS.glob("*/*"), key=lambda folder: (not (folder / MANIFEST).exists(), folder))
    for folder in folders:
        if RUN.fullmatch(folder.relative_to(RUNS).as_posix()) and (folder / SPECIFICATION).exists():
            slug, _, digest = folder.name.rpartition("-")
            found.setdefault((folder.parent.name, digest), slug)
    return found


def slugged(text: str) -> str:
    """A text as part of a path: lower case, other characters than letters, digits and `_` become hyphens."""
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")
