"""Classifier-free guidance."""

from __future__ import annotations

from torch import Tensor


def guided(both: Tensor, scale: float) -> Tensor:
    """e_0 + s (e_p - e_0), classifier-free guidance.

    Args:
        both: e_0 of every image, without its prompt, and then e_p of every image, (2 batch, ...).
        scale: s; at 1 it is e_p.
    """
    without, with_prompt = both.chunk(2)
    return without + scale * (with_prompt - without)
