"""Settings of the gate: the paper's counts for its original model."""

from __future__ import annotations

from typing import Literal

from corelib.settings.section import Section


class GateStage(Section):
    """Settings of the stages `gate` and `gates`: the paper's counts, for comparison with the base model's.

    Attributes:
        task: the task whose evaluation grid is used.
        published: k and n by metric.
        on_failure: action if the base model differs from the paper's. "stop" stops everything after the gate; "warn"
            only reports the outcome.
    """

    task: str
    published: dict[str, tuple[int, int]]
    on_failure: Literal["stop", "warn"]
