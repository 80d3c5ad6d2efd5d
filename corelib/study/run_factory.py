"""Creates the runs of a plan, equal runs only once."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace

from corelib.runs.layout import REPOSITORY, slugify
from corelib.runs.run import Run
from corelib.runs.specification import Execution
from corelib.runs.stage_registry import STAGES
from corelib.settings.section import Section

cached_method = functools.cache
"""Caches the results of a plan's method; plans live as long as the process, so the cache may too."""


class RunFactory:
    """Creates runs by the registry of stages.

    Args:
        execution: how the work of a run is divided into jobs and saved.
        slugs: the slugs of known runs, by stage and the first 12 characters of the digest. An equal run that is
            planned under another slug gets the known one.
    """

    def __init__(self, execution: Execution, slugs: Mapping[tuple[str, str], str]) -> None:
        self._execution = execution
        self._slugs = slugs
        self._runs: dict[str, Run] = {}

    def make(
        self,
        stage: str,
        slug: str,
        settings: Section,
        threads: int,
        inputs: Mapping[str, Run],
        after: Mapping[str, Run] | None = None,
        places: Mapping[str, str] | None = None,
    ) -> Run:
        """The run of a stage with these settings and inputs; if an equal run was created before, that one.

        Args:
            stage: name of the stage in the registry.
            slug: readable part of the run's name.
            settings: the leaves that the stage reads.
            threads: number of CPU threads.
            inputs: the runs that it builds on, by role.
            after: the runs that it waits for without reading them, by role.
            places: the paths of the user's files that it adopts, by name.
        """
        scripts = tuple(REPOSITORY / "workflow_scripts" / script for script in STAGES[stage].scripts)
        run = Run(
            stage=stage,
            scripts=scripts,
            slug=slugify(slug),
            settings=settings,
            threads=threads,
            inputs=inputs,
            after=after or {},
            places=places or {},
            execution=self._execution,
        )
        if (known := self._slugs.get((stage, run.digest[:12]), run.slug)) != run.slug:
            run = replace(run, slug=known)
        return self._runs.setdefault(run.digest, run)
