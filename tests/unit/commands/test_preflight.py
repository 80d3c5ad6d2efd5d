"""Preflight finds faults before anything starts; a real run checks disk space and versions itself."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from support.checkout import REPOSITORY, Checkout

from corelib.commands import preflight as module
from corelib.commands.preflight import preflight
from corelib.costs.forecast import forecast
from corelib.errors import ConfigurationError
from corelib.runs.pins import differing_versions, pinned_versions
from corelib.study.loading import load_plan

Usage = namedtuple("Usage", "total used free")


def findings(study: str, repository: Path = REPOSITORY) -> dict[str, list[str]]:
    """The findings by kind."""
    reported: dict[str, list[str]] = {"ok": [], "note": [], "FAULT": []}
    for found in preflight(load_plan(study, REPOSITORY / "config"), repository, REPOSITORY / "config"):
        reported[found.kind].append(f"{found.subject}: {found.said}")
    return reported


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_laptop_is_ready_for_the_miniature() -> None:
    reported = findings("mini")
    assert reported["FAULT"] == []
    assert any(line.startswith("disk: results need about") for line in reported["ok"])
    assert "versions: all 15 numerical packages have their pinned versions" in reported["ok"]


@pytest.mark.parametrize(("cores", "is_noted"), [(2, True), (4, False)])
def test_more_threads_than_cores_are_noted(cores: int, is_noted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    noted = "threads: jobs use up to 4 CPU threads, and this machine has 2 cores; to run them here, set `threads`"
    assert (noted in findings("paper")["note"]) == is_noted


def test_every_missing_asset_is_named() -> None:
    missing = [line for line in findings("paper")["FAULT"] if "is missing" in line]
    assert len(missing) == 9
    assert all(line.startswith("assets: assets/") for line in missing)


def test_the_command_for_assets_is_named_once_with_its_download_size() -> None:
    reported = findings("paper")
    assert not any("make assets" in line for line in reported["FAULT"])
    (advice,) = [line for line in reported["note"] if line.startswith("assets: ")]
    assert re.fullmatch(
        r"assets: `make assets` locks the present assets, and downloads about 84 GB of missing ones "
        r"\(.+ are free there\)",
        advice,
    )
    assert any(line.startswith("disk: results need about 7.5 GB, ") for line in reported["ok"])


def test_the_users_own_copies_are_not_announced_as_downloads(tmp_path: Path) -> None:
    configuration = Path(shutil.copytree(REPOSITORY / "config", tmp_path / "config"))
    (configuration / "studies/ours.yaml").write_text(
        "world: {assets: {images: /data/images, pipeline: /models/base}}\n"
    )
    reported = [str(found) for found in preflight(load_plan("ours", configuration), REPOSITORY, configuration)]
    (advice,) = [line for line in reported if "make assets" in line]
    assert "`make assets STUDY=ours` locks the present assets, and downloads about 2.5 GB of missing ones (" in advice
    assert advice.endswith(
        "; it does not download assets for which the study has its own path: /data/images, /models/base"
    )


def test_a_disk_that_is_too_small_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12 - 10**9, 10**9))
    (fault,) = [line for line in findings("paper")["FAULT"] if line.startswith("disk")]
    assert "results need about 7.5 GB, but 1.0 GB are free; free some space" in fault


def test_a_folder_that_cannot_be_written_to_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "access", lambda *_: False)  # root may write anywhere
    assert len(findings("mini")["FAULT"]) == 3


def test_other_package_versions_are_named_but_are_no_fault(tmp_path: Path) -> None:
    (tmp_path / "envs").mkdir()
    text = (REPOSITORY / "envs/requirements.txt").read_text()
    installed = importlib.metadata.version("diffusers")
    shutil.copy(REPOSITORY / "envs/requirements-cuda12.txt", tmp_path / "envs")
    (tmp_path / "envs/requirements.txt").write_text(text.replace(f"diffusers=={installed}", "diffusers==0.1.0"))
    (reported,) = differing_versions(tmp_path)
    assert reported == f"diffusers is {installed}, but 0.1.0 is pinned; results get other addresses"
    assert findings("mini", tmp_path)["note"][0] == f"versions: {reported}"
    assert pinned_versions(tmp_path)["diffusers"] == "0.1.0"


def test_a_real_run_without_disk_space_stops_before_its_first_job(tmp_path: Path) -> None:
    checkout = Checkout.at(tmp_path / "clone")
    checkout.edit("corelib/costs/workload.py", "\nBYTES_PER_FLOAT = 4\n", "\nBYTES_PER_FLOAT = 4_000_000_000\n")
    done = checkout.snakemake("--cores", "1", "results/tiny/table1.csv")
    assert done.returncode == 1
    assert "are free; free some space" in done.stdout
    assert "Traceback" not in done.stdout
    assert not list((checkout.folder / "runs").rglob("manifest.json"))


def test_a_real_run_names_other_package_versions_and_continues(tmp_path: Path) -> None:
    checkout = Checkout.at(tmp_path / "clone")
    installed = importlib.metadata.version("diffusers")
    checkout.edit("envs/requirements.txt", f"diffusers=={installed}\n", "diffusers==0.1.0\n")
    done = checkout.snakemake("--cores", "1", "results/tiny/table1.csv", "--until", "render_images")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(f"diffusers is {installed}, but 0.1.0 is pinned") == 1


def test_the_command_ends_with_the_number_of_faults(tmp_path: Path) -> None:
    checkout = Checkout.at(tmp_path / "clone")
    done = checkout.python("-m", "corelib", "preflight")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "paper: 9 faults, expected none."
    done = checkout.python("-m", "corelib", "preflight", "nobody")
    assert done.returncode == 1 and done.stdout.startswith("Error: ")


def test_disk_space_is_checked_where_results_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 1, 0))
    plan = load_plan("tiny", REPOSITORY / "config")
    products = {f"results/tiny/{name}": run for name, run in plan.products().items()}
    with pytest.raises(ConfigurationError, match="but 0 B are free; free some space, or work in a clone"):
        module.check_disk_space(forecast(products, "miniature"))
