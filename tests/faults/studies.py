"""The studies that the fault tests build undisturbed, with real Snakemake in separate checkouts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from support.checkout import REPOSITORY, Checkout

TABLE, FIGURE = "results/faults/table1.csv", "results/faults/figure2.png"
PROBES = [f"probe_{kind}.csv" for kind in ("partial", "relearning", "inversion", "prefix")]
PRODUCTS = ("charts1.values.png", "distances2.md", "sequence1.md", "claims.md", "report.html", *PROBES)
OTHERS = [f"results/faults/{name}" for name in PRODUCTS]
WITH_SHIPPED_WORLD = "base: faults\nworld: {pretrained: true}\n"
"""The same study with the world trained by the first one, shipped as the repository ships its own world."""


def build(folder: Path, paper: bool) -> list[Path]:
    """Build the small study, and optionally the gate of the paper's world, and return the checkouts."""
    if not paper:
        return [build_miniature(folder / "miniature")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])}
    subprocess.run([sys.executable, __file__, str(folder / "paper")], env=environment, check=True)
    return [build_miniature(folder / "miniature"), folder / "paper/clone"]


def checkout_at(folder: Path) -> Checkout:
    """A checkout with the small study."""
    checkout = Checkout.at(folder)
    shutil.copy(REPOSITORY / "tests/faults/study.yaml", folder / "config/studies/faults.yaml")
    # The method `diverging` needs a learning rate that every study is refused.
    checkout.edit("corelib/study/ranges.py", "method.learning_rate * scale.learning_rate >= 1:", "False:")
    return checkout


def build_miniature(folder: Path) -> Path:
    """Build one product of each kind, and the stage that adopts a trained world."""
    checkout = checkout_at(folder)
    _run(checkout, TABLE, FIGURE, *OTHERS)
    ship_and_adopt_world(checkout)
    return folder


def ship_and_adopt_world(checkout: Checkout) -> None:
    """Ship the world of a checkout, and let another study use it."""
    done = checkout.python("-m", "corelib", "ship", "faults")
    assert done.returncode == 0, done.stdout
    (checkout.folder / "config/studies/taking.yaml").write_text(WITH_SHIPPED_WORLD)
    _run(checkout, "results/taking/table1.csv", "--until", "adopt_pretrained")


def _run(checkout: Checkout, *arguments: str) -> None:
    done = checkout.snakemake("--cores", "2", *arguments)
    assert done.returncode == 0, done.stdout[-6000:]


def build_paper(folder: Path) -> Path:
    """Build the gate of the paper's world from a CompVis checkpoint and assets as published, with random content."""
    from test_full_format import COMPVIS, Form, checkout_of  # imported late: it imports the repository's modules

    checkout = checkout_of(folder, Form("folder", COMPVIS))
    done = checkout.python("-m", "corelib", "assets", "small", timeout=600)
    assert done.returncode == 0, done.stdout[-4000:]
    _run(checkout, "results/small/gate.md")
    return checkout.folder


if __name__ == "__main__":
    build_paper(Path(sys.argv[1]))
