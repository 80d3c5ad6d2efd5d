"""Addressed randomness: a draw is a function of what it is for, never of what was drawn before it.

`seed_of("noise", 188, "Van_Gogh", "Dogs")` is the same number in every process, order and machine, so images do not
depend on shards, training steps do not depend on interruptions, and nothing has to be saved to resume.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_of(*address: str | int) -> int:
    """A 63-bit seed that names `address`, for instance `("noise", 188, style, object)`.

    NumPy's generators use all 63 bits. torch's generator on the CPU (mt19937) uses the lowest 32 and no others, so two
    addresses may have one stream: of N addresses about N^2 / 2^33 pairs do. The paper's longest run draws from 337,500
    addresses, of which 12 pairs have one stream: draws that are 1,660 or more training steps apart. No two images have
    the same noise (tests/unit/test_randomness.py).
    """
    text = json.dumps(address, ensure_ascii=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*address: str | int) -> torch.Generator:
    """A CPU generator at the start of the stream that `address` names: one of 2^32 (see `seed_of`).

    Always on the CPU: the streams of GPUs differ between models, and the draws are small.
    """
    import torch  # here, so that stages which only render or slice never pay for importing it

    return torch.Generator().manual_seed(seed_of(*address))
