"""Another workflow uses this one as a Snakemake module, and requests our tables in its own rules."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.checkout import Checkout

OUTER = """\
rule all:
    input:
        "results/summary.txt",


rule summary:
    input:
        {target!r},
    output:
        "results/summary.txt",
    shell:
        "wc -c {{input}} > {{output}}"


module core:
    snakefile:
        {snakefile!r}
{more}

use rule * from core
"""
SMALL = """\
base: mini
tasks:
  Forget01:
    evaluation: {retain: [Rose_Waves, Teal_Stripes], objects: [Arrows], seeds: [188]}
  Forget06: null
  Forget25: null
  Forget06-unseen: null
tables: {table1: null, table2: null, table3: null, table4: null}
figures:
  figure2: {task: Forget01, prompts: [[Sky_Waves, Arrows]], columns: [original]}
  figure3: null
sampling: {scheduler: {steps: 2}, batch: 3}
"""
"""A study with one picture of the shipped model: an adoption, embeddings, one batch and a figure."""


def other_workflow(folder: Path, core: Checkout, target: str, more: str = "") -> Checkout:
    """Another workflow in a separate folder, with a copy of our profiles."""
    folder.mkdir()
    (folder / "Snakefile").write_text(OUTER.format(target=target, snakefile=str(core.folder / "Snakefile"), more=more))
    shutil.copytree(core.folder / "profiles", folder / "profiles")
    return Checkout(folder)


@pytest.fixture
def core(tmp_path: Path) -> Checkout:
    return Checkout.at(tmp_path / "a place/core")


def test_a_rule_of_another_workflow_can_request_a_table(core: Checkout, tmp_path: Path) -> None:
    theirs = other_workflow(tmp_path / "theirs", core, "results/mini/table1.csv")
    planned = theirs.planned()
    assert planned.pop("all") == planned.pop("summary") == 1
    assert planned == core.planned("results/mini/table1.csv")


@pytest.mark.slow
def test_a_rule_of_another_workflow_can_use_a_figure(core: Checkout, tmp_path: Path) -> None:
    (core.folder / "config/studies/one.yaml").write_text(SMALL)
    theirs = other_workflow(tmp_path / "theirs", core, "results/one/figure2.png")
    done = theirs.snakemake("--cores", "2")
    assert done.returncode == 0, done.stdout[-4000:]
    assert "results/one/figure2.png" in (theirs.folder / "results/summary.txt").read_text()
    assert not (core.folder / "runs").exists() and not (core.folder / "results").exists()
    assert theirs.planned() == {}
    # a figure that was edited by hand is rebuilt, as in an ordinary clone
    (theirs.folder / "results/one/figure2.png").write_bytes(b"other")
    planned = theirs.planned()
    assert planned["draw"] == 1 and "sample_shard" not in planned
    record = json.loads((theirs.folder / "results/one/figure2.provenance.json").read_text())
    assert record["specification"]["stage"] == "figures"


def test_hooks_of_another_workflow_run_as_well(core: Checkout, tmp_path: Path) -> None:
    (core.folder / "config/studies/one.yaml").write_text(SMALL)
    theirs = other_workflow(tmp_path / "theirs", core, "results/one/figure2.png")
    snakefile = theirs.folder / "Snakefile"
    hooks = 'onstart:\n    print("THEIR START")\n\n\nonsuccess:\n    print("THEIR END")\n\n\n'
    snakefile.write_text(hooks + snakefile.read_text())
    done = theirs.snakemake("--cores", "1", "--until", "adopt_pretrained")
    assert done.returncode == 0, done.stdout[-4000:]
    assert done.stdout.count("THEIR START") == done.stdout.count("THEIR END") == 1
    assert list((theirs.folder / "runs/pretrained").glob("*/manifest.json"))


@pytest.mark.parametrize("more", ['    prefix:\n        "core"', '    replace_prefix:\n        {"runs/": "core/"}'])
def test_a_prefix_is_refused_in_one_sentence(more: str, core: Checkout, tmp_path: Path) -> None:
    done = other_workflow(tmp_path / "theirs", core, "results/mini/table1.csv", more).snakemake("-n")
    assert done.returncode == 1
    sentence = "the module's prefix changes runs/ into core/"
    assert sentence in done.stdout and "expected no prefix and no replace_prefix" in done.stdout, done.stdout
    assert "Traceback" not in done.stdout and "Exception" not in done.stdout


def test_missing_assets_are_reported_before_the_first_job_of_another_workflow(core: Checkout, tmp_path: Path) -> None:
    done = other_workflow(tmp_path / "theirs", core, "results/table1.csv").snakemake("--cores", "1")
    assert done.returncode == 1 and "Error: assets of the paper's world: assets/" in done.stdout, done.stdout
    assert "Traceback" not in done.stdout and "localrule adopt_assets" not in done.stdout


def test_a_second_snakemake_in_the_folder_of_another_workflow_is_refused(core: Checkout, tmp_path: Path) -> None:
    from contextlib import chdir

    from corelib.runs.lease import Lease
    from corelib.runs.requests import CONTROLLER_LEASE

    theirs = other_workflow(tmp_path / "theirs", core, "results/mini/table1.csv")
    with chdir(theirs.folder):
        CONTROLLER_LEASE.parent.mkdir(parents=True)
        with Lease(CONTROLLER_LEASE).held():
            done = theirs.snakemake("--cores", "1")
    assert done.returncode == 1 and "Snakemake already runs here" in done.stdout, done.stdout
