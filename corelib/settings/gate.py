"""What the gate reads: what the paper says of its original model."""

from __future__ import annotations

from typing import Literal

from corelib.settings.section import Section


class GateStage(Section):
    """The paper's counts on the images by which the base model is judged.

    Attributes:
        task: whose evaluation grid it is.
        published: k and n by metric.
        on_failure: whether a base model that is not the paper's stops everything after it, or is only named.
    """

    task: str
    published: dict[str, tuple[int, int]]
    on_failure: Literal["stop", "warn"]
