"""Which tensors of the base model move; apart from objectives, of which those who only load a delta know nothing."""

from __future__ import annotations

from typing import Literal

Trained = Literal["cross_attention", "keys_and_values"]
"""All of the cross-attention (Appendix B), or of it only the tensors that read the prompt."""
