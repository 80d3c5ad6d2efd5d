"""Warnings about the numbers of a model: a training or a search that diverged, and flagged images."""

from __future__ import annotations

from collections.abc import Mapping


def remark_on(diverged: Mapping[str, int | None], flagged: int) -> str:
    """The warnings about some numbers; empty if there are none.

    Args:
        diverged: the step at which something diverged, None if it did not, by the words that precede the step.
        flagged: number of images that are constant or not finite.
    """
    remarks = [f"{words} diverged at step {step}".strip() for words, step in diverged.items() if step is not None]
    if flagged:
        images = "1 image" if flagged == 1 else f"{flagged} images"
        remarks.append(f"{images} constant or not finite")
    return "; ".join(remarks)
