"""Assets are adopted if `runs` and `assets` are links to a larger disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_full_format import FEWER, Form, checkout_of
from test_linked_folders import LINKED, put_on_scratch

from corelib.runs.layout import MANIFEST


@pytest.mark.slow
def test_assets_are_adopted_if_runs_and_assets_are_links(tmp_path: Path) -> None:
    """From `make assets` to the stages that read images and weights through the links in the folders of runs."""
    checkout = checkout_of(tmp_path / "home", Form("folder"), FEWER)
    put_on_scratch(checkout, tmp_path / "scratch")
    for command in ("assets", "preflight"):
        done = checkout.python("-m", "corelib", command, "small", timeout=300)
        assert done.returncode == 0, done.stdout[-4000:]
    for rules in (["adopt_assets"], ["slice_images", "embed_prompts"]):
        done = checkout.snakemake("--cores", "2", "results/small/table1.csv", "--until", *rules)
        assert done.returncode == 0, done.stdout[-4000:]
    assert all((checkout.folder / name).is_symlink() for name in LINKED)
    made = {
        stage: len(list((checkout.folder / "runs" / stage).glob(f"*/{MANIFEST}"))) for stage in ("assets", "slices")
    }
    assert made == {"assets": 5, "slices": 1}
    assert list((checkout.folder / "runs/embeddings").glob(f"*/{MANIFEST}"))
