"""A short random walk of changes to a folder of results; `make test-faults` takes a long one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.checkout import REPOSITORY


@pytest.mark.slow
def test_the_products_are_correct_after_every_move_of_a_short_walk(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, str(REPOSITORY / "tests/walk"), "--moves", "8", "--seed", "5", "--json", str(report)]
    done = subprocess.run([*command, "--scratch", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    steps = json.loads(report.read_text())
    assert len(steps) == 8
    assert len({step["move"] for step in steps}) >= 4
