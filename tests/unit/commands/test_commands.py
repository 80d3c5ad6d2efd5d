"""The commands for results: `verify` finds inconsistencies, `why` names changes, `clean` frees disk space."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import records
from support.checkout import REPOSITORY, Checkout

from corelib.commands.cli import main
from corelib.files.hashing import sha256_of_path
from corelib.files.json_files import write_json
from corelib.files.sealed_json import sealed, write_record
from corelib.maintenance.verification import verify_results
from corelib.runs.lease import Lease
from corelib.runs.lease_owner import Owner, owner_as_json
from corelib.runs.requests import CONTROLLER_LEASE

TABLE = "results/tiny/table1.csv"
FASTER = "  core:\n    learning_rate: 1.0e-3\n", "  core:\n    learning_rate: 2.0e-3\n"
"""An edit of one hyperparameter of one method."""


def first_path(checkout: Checkout, pattern: str) -> Path:
    """The first path that matches a pattern."""
    return sorted(checkout.folder.glob(pattern))[0]


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def amend(path: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# verify


def test_the_results_of_the_workflow_are_consistent(checkout: Checkout) -> None:
    done = checkout.python("-m", "corelib", "verify")
    assert done.returncode == 0, done.stdout
    assert "complete runs and 2 products, 0 faults" in done.stdout


@pytest.mark.parametrize(
    ("pattern", "damage", "expected"),
    [
        ("runs/unlearning/core-*/delta.safetensors", flip_a_byte, "delta.safetensors: its sha256 is"),
        ("runs/samples/core-*/images/*.jpg", flip_a_byte, "images: its sha256 is"),
        (
            "runs/latents/*/moments.safetensors",
            Path.unlink,
            "moments.safetensors: missing, expected the file listed in",
        ),
        ("runs/predictions/core-*/predictions.parquet", flip_a_byte, "predictions.parquet: its sha256 is"),
        (TABLE, flip_a_byte, "table1.csv: its sha256 is"),
        ("runs/fid/core-*/manifest.provenance.json", Path.unlink, "expected the provenance record of the run"),
        ("runs/cells/core-*/manifest.json", lambda path: path.write_text("{"), "not readable as JSON"),
        ("runs/cells/core-*/manifest.json", lambda path: path.write_text("[]"), "not a manifest"),
    ],
)
def test_every_damaged_file_is_named(
    pattern: str, damage: Callable[[Path], None], expected: str, checkout: Checkout
) -> None:
    damage(first_path(checkout, pattern))
    done = checkout.python("-m", "corelib", "verify")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert expected in done.stdout
    assert "0 faults" not in done.stdout


def test_an_edited_specification_is_named(checkout: Checkout) -> None:
    path = first_path(checkout, "runs/unlearning/core-*/specification.json")
    amend(path, lambda content: content["settings"].update(learning_rate=0.5))
    done = checkout.python("-m", "corelib", "verify")
    assert done.returncode == 1
    assert f"{path.relative_to(checkout.folder)}: its seal does not match its content; it was damaged" in done.stdout


def test_a_run_under_the_name_of_another_run_is_noticed(checkout: Checkout) -> None:
    one, other = sorted(checkout.folder.glob("runs/cells/core-*"))
    shutil.rmtree(one)
    shutil.copytree(other, one)
    done = checkout.python("-m", "corelib", "verify")
    assert done.returncode == 1
    assert f"{one.relative_to(checkout.folder)}/specification.json: its digest is" in done.stdout


def test_an_unfinished_run_is_counted_but_is_no_fault(checkout: Checkout) -> None:
    for path in first_path(checkout, "runs/cells/core-*").glob("manifest.*"):
        path.unlink()
    done = checkout.python("-m", "corelib", "verify")
    assert done.returncode == 0
    assert "1 run is unfinished" in done.stdout


def test_an_asset_that_was_replaced_after_its_adoption_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inception.pt").write_bytes(b"weights")
    settings = {"sha256": {"inception": sha256_of_path(tmp_path / "inception.pt")}, "unet": None, "classifiers": {}}
    planned = records.specification("assets", "inception", settings=settings)
    folder, manifest = records.folder_of(planned), records.manifest_record(planned)
    write_record(folder / "specification.json", planned)
    write_record(folder / "manifest.json", manifest)
    write_record(folder / "manifest.provenance.json", records.provenance(planned, manifest))
    (folder / "inception").symlink_to(tmp_path / "inception.pt")
    assert verify_results().faults == []
    (tmp_path / "inception.pt").write_bytes(b"other weights")
    (fault,) = verify_results().faults
    assert fault.startswith("inception.pt: its sha256 is")
    (tmp_path / "inception.pt").unlink()
    (fault,) = verify_results().faults
    assert fault.startswith("inception.pt: missing")


# why


def test_a_changed_hyperparameter_is_named_and_nothing_else(checkout: Checkout) -> None:
    checkout.edit("config/studies/tiny.yaml", *FASTER)
    output = checkout.python("-m", "corelib", "why", TABLE).stdout.splitlines()
    causes = [line for line in output if line.startswith("unlearning core-")]
    assert len(causes) == 2 and "60 steps" in causes[0]
    assert all("learning_rate: 0.001 -> 0.002" in output[output.index(cause) + 1] for cause in causes)
    planned = checkout.planned(TABLE)
    runs = sum(count for rule, count in planned.items() if rule != "sample_shard")
    assert output[-2] == f"and {runs - 2} runs that build on these"
    assert output[-1].startswith(f"{runs} runs in all, 120 steps")


def test_a_changed_module_is_named(checkout: Checkout) -> None:
    checkout.edit(
        "corelib/evaluation/metrics.py", 'ACCURACIES = ("UA", "IRA", "CRA")', 'ACCURACIES = ("UA",) + ("IRA", "CRA")'
    )
    output = checkout.python("-m", "corelib", "why", TABLE).stdout
    assert "module corelib.evaluation.metrics has changed" in output
    assert "unlearning" not in output


def test_why_reports_nothing_for_complete_targets(checkout: Checkout) -> None:
    assert checkout.python("-m", "corelib", "why", TABLE).stdout.startswith("Nothing to do")


def test_without_runs_every_run_is_its_own_cause(tmp_path: Path) -> None:
    output = Checkout.at(tmp_path / "clone").python("-m", "corelib", "why", TABLE).stdout
    assert "there is no earlier run to compare with" in output
    assert "that build on these" not in output


def test_one_table_can_compare_two_values_of_a_hyperparameter(checkout: Checkout) -> None:
    """The example of docs/reruns.md with the tests' study: one more method is trained, and no other run is new."""
    (checkout.folder / "config/studies/faster.yaml").write_text(
        "base: tiny\n"
        "methods:\n"
        "  core_faster: {like: core, title: CORE (twice the rate), learning_rate: 2.0e-3}\n"
        "tables:\n"
        "  table1: {rows: [original, core, core_faster]}\n"
    )
    planned = checkout.planned("results/faster/table1.csv")
    assert planned["unlearn"] == 2 and planned["tabulate"] == 1
    assert not planned.keys() & {"encode_images", "embed_prompts", "slice_images", "train_pipeline"}
    assert all(count <= 4 for count in planned.values())
    output = checkout.python("-m", "corelib", "why", "results/faster/table1.csv").stdout
    assert "unlearning core_faster-forget01" in output and "unlearning core-forget01" not in output


# clean


def test_runs_that_a_study_names_are_kept(checkout: Checkout) -> None:
    output = checkout.python("-m", "corelib", "clean", "--delete").stdout
    assert output.strip().endswith("0 runs that no study names, removed.")
    assert checkout.planned(TABLE) == {}


def test_old_runs_are_listed_and_removed_only_with_delete(checkout: Checkout) -> None:
    old = sorted(path.name for path in checkout.folder.glob("runs/unlearning/core-*"))
    checkout.edit("config/studies/tiny.yaml", *FASTER)
    output = checkout.python("-m", "corelib", "clean").stdout
    assert "no study here names them, but results/tiny/figure2 and results/tiny/table1 show them." in output
    assert output.strip().endswith("0 runs that no study names.")
    shutil.rmtree(checkout.folder / "results")
    output = checkout.python("-m", "corelib", "clean").stdout
    assert all(f"runs/unlearning/{name}, finished 20" in output for name in old)
    assert "Made for figure2 and table1 of the study tiny, before the study, the code or the packages" in output
    assert "--delete removes them" in output
    assert sorted(path.name for path in checkout.folder.glob("runs/unlearning/core-*")) == old
    done = checkout.python("-m", "corelib", "clean", "--delete")
    assert done.returncode == 0
    assert not list(checkout.folder.glob("runs/unlearning/core-*"))
    assert list(checkout.folder.glob("runs/unlearning/esd-*"))
    assert checkout.python("-m", "corelib", "verify").returncode == 0


def test_a_run_that_may_be_in_progress_elsewhere_is_kept_even_with_an_old_lease(checkout: Checkout) -> None:
    old = first_path(checkout, "runs/unlearning/core-*")
    shutil.rmtree(checkout.folder / "results")
    checkout.edit("config/studies/tiny.yaml", *FASTER)
    lease = old / "manifest.lease"
    lease.write_text(owner_as_json(Owner.of_this_process().model_copy(update={"host": "elsewhere"})))
    os.utime(lease, (0, 0))
    checkout.python("-m", "corelib", "clean", "--delete")
    assert (old / "delta.safetensors").exists()
    lease.unlink()
    checkout.python("-m", "corelib", "clean", "--delete")
    assert not old.exists()


def test_nothing_is_removed_while_snakemake_works_here(checkout: Checkout) -> None:
    """Otherwise, all its runs would count as unused if its study was edited meanwhile."""
    shutil.rmtree(checkout.folder / "results")
    checkout.edit("config/studies/tiny.yaml", *FASTER)
    old = first_path(checkout, "runs/unlearning/core-*")
    lease = Lease(checkout.folder / CONTROLLER_LEASE)
    lease.take(patience=0)
    try:
        done = checkout.python("-m", "corelib", "clean", "--delete")
    finally:
        lease.give_back()
    assert done.returncode == 1 and "Snakemake runs here" in done.stdout
    assert (old / "delta.safetensors").exists()
    assert checkout.python("-m", "corelib", "clean", "--delete").returncode == 0
    assert not old.exists()


def test_nothing_is_removed_if_other_package_versions_change_all_addresses(checkout: Checkout) -> None:
    before = sorted(checkout.folder.glob("runs/*/*"))
    version = importlib.metadata.version("scipy")
    checkout.edit("envs/requirements.txt", f"scipy=={version}", "scipy==1.0.0")
    shutil.rmtree(checkout.folder / "results")
    checkout.edit("config/studies/tiny.yaml", *FASTER)
    done = checkout.python("-m", "corelib", "clean", "--delete")
    assert done.returncode == 1 and f"scipy is {version}, but 1.0.0 is pinned" in done.stdout
    assert sorted(checkout.folder.glob("runs/*/*")) == before


def test_a_removed_run_is_rebuilt_with_everything_that_was_made_from_it(checkout: Checkout) -> None:
    delta = first_path(checkout, "runs/unlearning/core-*")
    name = delta.relative_to(checkout.folder / "runs").as_posix()
    shutil.rmtree(delta)
    assert checkout.planned(TABLE) == {}  # the runs that were made from it are complete, and do not need it
    output = checkout.python("-m", "corelib", "plan", TABLE).stdout
    assert "Nothing to do: 1 of the " in output and f"clean {name} --delete" in output
    assert checkout.python("-m", "corelib", "clean", name, "--delete").returncode == 0
    planned = checkout.planned(TABLE)
    assert planned["unlearn"] == planned["gather_samples"] == planned["count_cells"] == planned["tabulate"] == 1
    done = checkout.python("-m", "corelib", "clean", "unlearning/nosuch")
    assert done.returncode == 1 and "unlearning/nosuch: no run in runs has this name" in done.stdout


def test_a_run_made_with_another_build_of_a_model_is_named(checkout: Checkout) -> None:
    path = first_path(checkout, "runs/unlearning/core-*/manifest.json")
    content = {**json.loads(path.read_text()), "facts": {"steps": 61}}
    write_json(path, sealed({key: value for key, value in content.items() if key != "seal"}))
    output = checkout.python("-m", "corelib", "verify").stdout
    run = path.parent.relative_to(checkout.folder)
    for stage in ("samples", "predictions", "fid", "cells"):
        folder = first_path(checkout, f"runs/{stage}/{path.parent.name.rpartition('-')[0]}-*").relative_to(
            checkout.folder
        )
        assert f"{folder}: it was made with another build of the model {run}" in output
    assert f"results/tiny/table1.json: table1: it was made with another build of the model {run}" in output
    assert re.search(
        r"^results/tiny/table1 was made from runs that have faults: .+ and \d+ more\.$", output, re.MULTILINE
    )


def test_targets_of_links_are_not_removed(checkout: Checkout, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "image.jpg").write_bytes(b"x")
    planned = records.specification("assets", "old")
    run = checkout.folder / records.folder_of(planned)
    write_record(run / "specification.json", planned)
    (run / "images").symlink_to(precious)
    checkout.python("-m", "corelib", "clean", "--delete")
    assert not run.exists()
    assert (precious / "image.jpg").exists()


def test_nothing_is_removed_while_a_study_cannot_be_read(checkout: Checkout) -> None:
    (checkout.folder / "config/studies/broken.yaml").write_text("methods: {core: {learning_rte: 1}}\n")
    shutil.rmtree(checkout.folder / "results")
    checkout.edit("config/studies/tiny.yaml", *FASTER)
    before = sorted(checkout.folder.glob("runs/*/*"))
    done = checkout.python("-m", "corelib", "clean", "--delete")
    assert done.returncode == 1 and done.stdout.startswith("Error: ")
    assert sorted(checkout.folder.glob("runs/*/*")) == before


# All commands


COMMANDS = [
    "preflight",
    "plan",
    "assets",
    "jobs",
    "logs",
    "why",
    "verify",
    "clean",
    "export",
    "products",
    "study",
    "ship",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_description(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit):
        main([command, "--help"])
    description = " ".join(capsys.readouterr().out.split("\n\n")[1].split())
    assert description.endswith(".")
    assert f"{command} {description[0].lower()}{description[1:-1]}" in listed


@pytest.mark.parametrize("command", ["why", "plan", "products"])
def test_a_command_whose_output_is_no_longer_read_ends_quietly(command: str) -> None:
    shell = f"{sys.executable} -m corelib {command}; echo status $? >&2"
    done = subprocess.run(f"( {shell} ) | true", shell=True, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stderr == "status 141\n"


def test_the_error_without_the_packages_names_the_right_python() -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "corelib", "plan"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert done.stderr.endswith("use .venv/bin/python, which `make env` creates.\n")


def test_why_and_plan_name_the_same_time(tmp_path: Path) -> None:
    clone = Checkout.at(tmp_path / "clone")
    plan, why = (clone.python("-m", "corelib", command, TABLE).stdout for command in ("plan", "why"))
    (minutes,) = re.findall(r"about (\d+) minutes of one CPU core", plan)
    assert f"about {minutes} minutes of a core" in why.splitlines()[-1]
