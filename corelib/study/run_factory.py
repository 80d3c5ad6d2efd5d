"""Makes the runs of a plan, equal ones once."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from corelib.runs.layout import REPOSITORY
from corelib.runs.run import Run, slugged
from corelib.runs.stages import STAGES
from corelib.settings.section import Section

once = functools.cache
"""Plans live as long as the process, so the answers of their methods may be kept too."""


class RunFactory:
    """Makes runs by the registry of stages.

    Args:
        execution: how the work of runs is cut and saved.
        slugs: the slugs of runs that are known already, by stage and beginning of the digest. An equal run planned
            under another slug gets the known one.
    """

    def __init__(self, execution: Mapping[str, Any], slugs: Mapping[tuple[str, str], str]) -> None:
        self._execution = execution
        self._slugs = slugs
        self._made: dict[str, Run] = {}

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
        """The run of a stage with these settings and inputs; of equal runs, the one that was made first.

        Args:
            stage: its name in the registry.
            slug: what the run is called.
            settings: the leaves that the stage reads.
            threads: CPU threads.
            inputs: the runs it builds on, by role.
            after: the runs it waits for without reading them, by role.
            places: the user's own files that it takes into use, by name.
        """
        scripts = tuple(REPOSITORY / "workflow_scripts" / script for script in STAGES[stage].scripts)
        run = Run(stage, scripts, slugged(slug), settings, threads, inputs, self._execution, after or {}, places or {})
        if (known := self._slugs.get((stage, run.digest[:12]), run.slug)) != run.slug:
            run = replace(run, slug=known)
        return self._made.setdefault(run.digest, run)
