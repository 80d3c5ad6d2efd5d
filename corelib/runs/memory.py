"""How a job's process keeps memory: freed blocks stay with it, so that the next tensor of that size finds them.

By default, glibc returns each large block to the kernel when it is freed, and asks for a new one for the next tensor;
the kernel then fills every page with zeros again. On a CPU, this takes a tenth of the time of sampling. No number
depends on it.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of two options of `mallopt` in glibc's malloc.h."""

MAX_KEPT_BLOCK = 32 << 20
"""Size in bytes up to which a block comes from the memory that the process keeps; the largest value that every version
of glibc takes. The activations of small models fit into such blocks; the weights of large ones do not."""

MAX_KEPT_MEMORY = 512 << 20
"""Size in bytes of the free memory at its end that the process keeps."""


def keep_freed_memory() -> bool:
    """Keep freed blocks in this process; return whether the C library has these options, as glibc does."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    is_set = [mallopt(M_MMAP_THRESHOLD, MAX_KEPT_BLOCK), mallopt(M_TRIM_THRESHOLD, MAX_KEPT_MEMORY)]
    return all(is_set)
