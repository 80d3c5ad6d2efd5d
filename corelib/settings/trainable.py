"""Which tensors are trainable. A separate module, so that loading a delta does not import objectives."""

from __future__ import annotations

from typing import Literal

TrainableTensors = Literal["cross_attention", "keys_and_values"]
"""All tensors of the cross-attention (Appendix B), or only its keys and values, which read the prompt."""

DeltaTensors = TrainableTensors | Literal["all"]
"""The tensors of a delta: those that unlearning trains here, or all of the U-Net for a model trained elsewhere."""
