"""Classifier-free guidance."""

from __future__ import annotations

from torch import Tensor


def apply_guidance(predictions: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: e_0 + s (e_p - e_0).

    Args:
        predictions: e_0 of all images, predicted without prompt, followed by e_p of all images, (2 batch, ...).
        scale: s; with s = 1 the result is e_p.
    """
    unconditional, conditional = predictions.chunk(2)
    return unconditional + scale * (conditional - unconditional)
