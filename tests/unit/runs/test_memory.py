"""How a job's process keeps memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.checkout import REPOSITORY

ROUNDS = """
import resource
from corelib.runs.memory import keep_freed_memory

is_set = {act}

def take_and_free():
    blocks = [bytearray(24 << 20) for _ in range(4)]
    del blocks

for _ in range(3):
    take_and_free()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    take_and_free()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, is_set)
"""


def page_faults(act: str) -> tuple[int, str]:
    """Page faults of five rounds in which 96 MiB are taken and freed, and the value of `act` before them."""
    command = [sys.executable, "-c", ROUNDS.format(act=act)]
    faults, is_set = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split()
    return int(faults), is_set


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's mallopt")
def test_freed_blocks_serve_the_next_ones_without_new_pages() -> None:
    faults, is_set = page_faults("keep_freed_memory()")
    assert is_set == "True"
    assert 10 * faults < page_faults("None")[0]
