"""What the fault tests build undisturbed, by real Snakemake in checkouts of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from support.checkout import REPOSITORY, Checkout

TABLE, FIGURE = "results/faults/table1.csv", "results/faults/figure2.png"
TAKING = "base: faults\nworld: {pretrained: true}\n"
"""The same study on the world that the first one has trained, shipped as a repository ships one."""


def build(folder: Path, paper: bool) -> list[Path]:
    """Build the small study, and perhaps the gate of the paper's world; the checkouts in which they lie."""
    if not paper:
        return [build_miniature(folder / "miniature")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])}
    subprocess.run([sys.executable, __file__, str(folder / "paper")], env=environment, check=True)
    return [build_miniature(folder / "miniature"), folder / "paper/clone"]


def checkout_at(folder: Path) -> Checkout:
    """A checkout that has the small study."""
    checkout = Checkout.at(folder)
    shutil.copy(REPOSITORY / "tests/faults/study.yaml", folder / "config/studies/faults.yaml")
    return checkout


def build_miniature(folder: Path) -> Path:
    """A table and a figure, and the stage that takes a trained world over."""
    checkout = checkout_at(folder)
    _run(checkout, TABLE, FIGURE)
    take_over(checkout)
    return folder


def take_over(checkout: Checkout) -> None:
    """Ship the world that lies there, and let another study take it."""
    done = checkout.python("-m", "corelib", "ship", "faults")
    assert done.returncode == 0, done.stdout
    (checkout.folder / "config/studies/taking.yaml").write_text(TAKING)
    _run(checkout, "results/taking/table1.csv", "--until", "adopt_pretrained")


def _run(checkout: Checkout, *arguments: str) -> None:
    done = checkout.snakemake("--cores", "2", *arguments)
    assert done.returncode == 0, done.stdout[-6000:]


def build_paper(folder: Path) -> Path:
    """The gate of the paper's world, on assets of the published form and random content, from a CompVis checkpoint."""
    from test_full_format import COMPVIS, Form, checkout_of  # here: it imports the repository's own modules

    checkout = checkout_of(folder, Form("folder", COMPVIS))
    done = checkout.python("-m", "corelib", "assets", "small", timeout=600)
    assert done.returncode == 0, done.stdout[-4000:]
    _run(checkout, "results/small/gate.md")
    return checkout.folder


if __name__ == "__main__":
    build_paper(Path(sys.argv[1]))
