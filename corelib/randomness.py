"""Addressed randomness: each draw is a function of its address, never of earlier draws.

`seed_of("noise", 188, "Van_Gogh", "Dogs")` returns the same number in every process, in any order and on any machine.
Images therefore do not depend on shards, training steps do not depend on interruptions, and no state of a generator
has to be saved for resumption.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_of(*address: str | int) -> int:
    """The 63-bit seed of `address`, for instance of `("noise", 188, style, object)`.

    NumPy's generators use all 63 bits. torch's CPU generator (mt19937) uses only the lowest 32, so two addresses can
    share a stream: among N addresses, about N^2 / 2^33 pairs do. The paper's longest run draws from 337,500 addresses.
    12 pairs of them share a stream; their draws are 1,660 or more training steps apart. No two images have the same
    noise (tests/unit/test_randomness.py).
    """
    text = json.dumps(address, ensure_ascii=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*address: str | int) -> torch.Generator:
    """A CPU generator at the start of the stream of `address`, one of 2^32 streams (see `seed_of`).

    Always on the CPU: GPU streams differ between GPU models, and the draws are small.
    """
    import torch  # imported here, since stages that only render or slice do not need it

    return torch.Generator().manual_seed(seed_of(*address))
