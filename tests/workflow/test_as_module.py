"""Another workflow uses this one as a Snakemake module, and requests our tables in its own rules."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from support.checkout import Checkout

from corelib.study.loading import load_study
from corelib.study.study_files import OWN, SHIPPED, configuration_folder, study_file, study_names

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
    assert done.returncode == 1 and "Error: assets of the study: assets/" in done.stdout, done.stdout
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


# The configuration of the other workflow's folder


def command_of(core: Checkout, theirs: Checkout, *arguments: str) -> str:
    """The output of a command of the clone in the folder of the other workflow, on one line."""
    return " ".join(theirs.python("-m", "corelib", *arguments, PYTHONPATH=str(core.folder)).stdout.split())


def test_a_study_in_the_folder_of_another_workflow_overlays_one_of_the_clone(core: Checkout, tmp_path: Path) -> None:
    theirs = other_workflow(tmp_path / "theirs", core, "results/mine/figure2.png")
    studies = theirs.folder / "config/studies"
    studies.mkdir(parents=True)
    (theirs.folder / "config/config.yaml").write_text("samples: samples.tsv\n")  # that of the other workflow
    (studies / "mine.yaml").write_text(SMALL)
    assert theirs.planned()["sample_shard"] == 1
    assert "results/mine/figure2.png" in command_of(core, theirs, "products", "mine")
    assert "results/table1.csv" in command_of(core, theirs, "products", "paper")
    assert "no such study, expected one of paper, extended, mine, mini," in command_of(
        core, theirs, "products", "unknown"
    )
    (studies / "mine.yaml").write_text("base: mini\nsampling: {bach: 3}\n")
    done = theirs.snakemake("-n")
    assert "Error: config/studies/mine.yaml: sampling.bach is not a known key, expected `batch`." in done.stdout


def test_the_models_of_another_workflow_are_locked_in_its_folder(core: Checkout, tmp_path: Path) -> None:
    theirs = other_workflow(tmp_path / "theirs", core, "results/mine/table1.csv")
    shutil.copytree(core.folder / "config/pretrained/pipeline/unet", theirs.folder / "models/unet")
    study = theirs.folder / "config/studies/mine.yaml"
    study.parent.mkdir(parents=True)
    study.write_text(
        "base: mini\nmodels: {mine: {title: Mine, weights: {Forget01: models/unet}}}\n"
        "tables: {table1: {tasks: [Forget01], rows: [original, mine]}}\n"
    )
    assert "1 model, as in config/assets.lock.json." in command_of(core, theirs, "assets", "mine")
    assert "models/unet" in json.loads((theirs.folder / "config/assets.lock.json").read_text())["assets"]
    assert not (core.folder / "config/assets.lock.json").exists()
    assert theirs.planned()["adopt_model"] == 1


def test_studies_of_the_folder_come_before_those_of_the_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert configuration_folder() == SHIPPED
    (OWN / "studies").mkdir(parents=True)
    assert configuration_folder() == OWN
    assert study_names(OWN) == study_names(SHIPPED) and study_file("mini", OWN) == study_file("mini", SHIPPED)
    (OWN / "studies/mini.yaml").write_text("base: paper\n")
    assert study_file("mini", OWN) == OWN / "studies/mini.yaml"
    assert load_study("mini", OWN) == load_study("paper", SHIPPED)


def test_only_a_whole_study_replaces_that_of_the_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    OWN.mkdir()
    (OWN / "config.yaml").write_text("world: tour\n")
    assert configuration_folder() == SHIPPED and study_file("paper", OWN) == SHIPPED / "config.yaml"
    paper = (SHIPPED / "config.yaml").read_text()
    for content in (paper, f"{paper}\nfid: [\n"):
        (OWN / "config.yaml").write_text(content)
        assert configuration_folder() == OWN and study_file("paper", OWN) == OWN / "config.yaml"


# Deployed by snakedeploy, and from a hosted repository

DEPLOYED = """\
configfile: "config/config.yaml"


module core:
    snakefile:
        {snakefile}
    config:
        config


use rule * from core
"""


def deployed_workflow(folder: Path, core: Checkout, snakefile: str) -> Checkout:
    """The files that `snakedeploy deploy-workflow` writes, with the default profile: our `config/` and a Snakefile."""
    (folder / "workflow").mkdir(parents=True)
    (folder / "workflow/Snakefile").write_text(DEPLOYED.format(snakefile=snakefile))
    for name in ("config", "profiles"):
        shutil.copytree(core.folder / name, folder / name)
    return Checkout(folder)


@pytest.mark.parametrize("snakefile", ["Snakefile", "workflow/Snakefile"])
def test_a_deployed_workflow_builds_what_the_clone_builds(snakefile: str, core: Checkout, tmp_path: Path) -> None:
    theirs = deployed_workflow(tmp_path / "theirs", core, repr(str(core.folder / snakefile)))
    assert theirs.planned("results/mini/table1.csv") == core.planned("results/mini/table1.csv")
    theirs.edit("config/config.yaml", "gate: stop ", "gate: null ")
    assert "check_gate" in core.planned("results/table1.csv")
    assert "check_gate" not in theirs.planned("results/table1.csv")


def test_a_study_in_another_file_of_a_deployed_workflow_is_refused(core: Checkout, tmp_path: Path) -> None:
    theirs = deployed_workflow(tmp_path / "theirs", core, repr(str(core.folder / "Snakefile")))
    (theirs.folder / "config/config.yaml").rename(theirs.folder / "config/other.yaml")
    theirs.edit("workflow/Snakefile", "config/config.yaml", "config/other.yaml")
    done = theirs.snakemake("-n", "results/mini/table1.csv")
    assert done.returncode == 1
    assert (
        "config of the module: it contains a whole study; write that to the file config/config.yaml" in done.stdout
    ), done.stdout


@pytest.fixture
def hosted(core: Checkout, tmp_path: Path) -> dict[str, str]:
    """Variables with which git finds the clone, as OWNER/core at the tag v1, instead of the repository on GitHub."""
    repository = tmp_path / "host/OWNER/core"
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-C", str(core.folder)]
    for command in (["init", "--quiet"], ["add", "--all", "--force"], ["commit", "--quiet", "-m", "x"], ["tag", "v1"]):
        subprocess.run([*git, *command], check=True)
    subprocess.run(["git", "clone", "--quiet", "--bare", str(core.folder), str(repository)], check=True)
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{tmp_path}/host/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }


def test_a_module_from_a_hosted_repository_is_cloned_whole(
    core: Checkout, hosted: dict[str, str], tmp_path: Path
) -> None:
    source = 'github("OWNER/core", path="workflow/Snakefile", tag="v1")'
    theirs = deployed_workflow(tmp_path / "theirs", core, source)
    (theirs.folder / "config/studies/one.yaml").write_text(SMALL)
    for _ in range(2):  # cloned, and found in the cache
        target = ["results/one/figure2.png", "--until", "adopt_pretrained"]
        done = theirs.python("-m", "snakemake", "--cores", "1", *target, timeout=300, **hosted)
        assert done.returncode == 0, done.stdout[-4000:]
    record = json.loads(next(theirs.folder.glob("runs/pretrained/*/manifest.provenance.json")).read_text())
    head = subprocess.run(["git", "rev-parse", "v1"], cwd=core.folder, capture_output=True, text=True, check=True)
    assert record["commit"] == head.stdout.strip()


def test_the_snakefile_of_a_hosted_repository_that_needs_its_folder_says_which_to_use(
    core: Checkout, hosted: dict[str, str], tmp_path: Path
) -> None:
    theirs = deployed_workflow(tmp_path / "theirs", core, 'github("OWNER/core", path="Snakefile", tag="v1")')
    done = theirs.python("-m", "snakemake", "-n", "results/mini/table1.csv", timeout=300, **hosted)
    assert done.returncode == 1
    assert "for a hosted repository, use its file workflow/Snakefile" in done.stdout, done.stdout
