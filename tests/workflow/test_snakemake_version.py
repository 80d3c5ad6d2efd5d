"""The Snakefile refuses a Snakemake that is older than the pinned one."""

from __future__ import annotations

import re
from pathlib import Path

from support.checkout import REPOSITORY, Checkout

from corelib.runs.pins import pinned_versions

MIN_VERSION = re.compile(r'^min_version\("(.+)"\)  # ', re.MULTILINE)


def test_the_minimum_is_the_pinned_version() -> None:
    assert MIN_VERSION.findall((REPOSITORY / "Snakefile").read_text()) == [pinned_versions(REPOSITORY)["snakemake"]]


def test_an_older_snakemake_is_refused_before_anything_else(tmp_path: Path) -> None:
    clone = Checkout.at(tmp_path / "clone")
    installed = pinned_versions(REPOSITORY)["snakemake"]
    clone.edit("Snakefile", f'min_version("{installed}")', 'min_version("1000.0")')
    (clone.folder / "config/config.yaml").write_text("[")  # would be an error as well, but is not read
    done = clone.snakemake("-n", "results/table1.csv")
    assert done.returncode == 1
    assert f"Expecting Snakemake version 1000.0 or higher (you are currently using {installed})" in done.stdout
    assert "config.yaml" not in done.stdout
