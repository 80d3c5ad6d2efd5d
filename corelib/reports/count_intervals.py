"""The interval of a share: over the images of one model, or over training seeds."""

from __future__ import annotations

from collections.abc import Sequence

from corelib.evaluation.metrics import Count
from corelib.evaluation.seed_statistics import accuracy_interval

WILSON = "Wilson"
"""The kind of an interval over the images of one model."""


def share_interval(counts: Sequence[Count]) -> tuple[float, float]:
    """The 95 % interval of a share, in percent: over images for the count of one seed, else over seeds."""
    return counts[0].interval() if len(counts) == 1 else accuracy_interval(counts)


def interval_name(counts: Sequence[Count]) -> str:
    """The kind of `share_interval`: Wilson's over the images of one seed, or Student's t over several seeds."""
    return WILSON if len(counts) == 1 else f"t over {len(counts)} seeds"
