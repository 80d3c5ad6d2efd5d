"""`runs`, `results`, `logs`, `assets` and `.snakemake` as links to a larger disk: the usual set-up on clusters."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from support.checkout import REPOSITORY, Checkout

from corelib.runs.requests import CONTROLLER_LEASE
from corelib.study.targets import product_files
from corelib.workflow.catalogue import _link

LINKED = ("runs", "results", "logs", "assets", ".snakemake")


def put_on_scratch(checkout: Checkout, scratch: Path) -> None:
    """Move the folders of a clone to another disk, at another depth, and replace them by links."""
    for name in LINKED:
        place = scratch / "of" / "somebody" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if (checkout.folder / name).exists():
            shutil.move(checkout.folder / name, place)
        else:
            place.mkdir()
        (checkout.folder / name).symlink_to(place)


def has_all_links(checkout: Checkout) -> bool:
    return all((checkout.folder / name).is_symlink() for name in LINKED)


@pytest.mark.parametrize("place", ["assets/images", "../shared/images", "/absolute"])
def test_a_link_in_a_run_works_wherever_the_runs_are_stored(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place.replace("/absolute", str(tmp_path / "absolute"))
    clone, scratch = tmp_path / "home/me/clone", tmp_path / "scratch/runs"
    for folder in (clone, scratch):
        folder.mkdir(parents=True)
    monkeypatch.chdir(clone)
    Path("runs").symlink_to(scratch)
    Path(place).mkdir(parents=True)
    Path(place, "here").touch()
    folder = Path("runs/assets/images-0123456789ab")
    folder.mkdir(parents=True)
    for _ in range(2):  # the second time, the link exists already
        _link(folder / "images", Path(place))
        assert (folder / "images/here").exists()


def test_a_link_in_a_run_works_after_the_whole_clone_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clone/assets").mkdir(parents=True)
    (tmp_path / "clone/runs/assets/x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "clone")
    _link(Path("runs/assets/x/images"), Path("assets"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clone").rename(tmp_path / "moved")
    assert (tmp_path / "moved/runs/assets/x/images").is_dir()


def test_products_of_a_study_in_a_linked_folder_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch/table1.json").touch()
    Path("results").mkdir()
    Path("results/mini").symlink_to(tmp_path / "scratch")
    products, others = product_files()
    assert list(products) == [Path("results/mini/table1.json")] and others == []


@pytest.mark.parametrize("name", LINKED[:3])
def test_a_broken_link_is_one_error_before_anything_is_computed(name: str, tmp_path: Path) -> None:
    checkout = Checkout.at(tmp_path / "clone")
    (checkout.folder / name).symlink_to(tmp_path / "unmounted")
    sentence = f"{name}: a link to {tmp_path}/unmounted, which is missing, expected a folder"
    done = checkout.snakemake("--cores", "1", "results/tiny/table1.csv")
    assert done.returncode == 1 and f"Error: {sentence}" in done.stdout, done.stdout
    assert "Traceback" not in done.stdout and "Exception" not in done.stdout
    done = checkout.python("-m", "corelib", "preflight", "tiny")
    assert f"FAULT  disk      {sentence}" in done.stdout, done.stdout


@pytest.mark.slow
def test_a_table_is_built_if_runs_and_results_are_links(tmp_path: Path) -> None:
    checkout = Checkout.at(tmp_path / "home/clone")
    shutil.copy(REPOSITORY / "tests/walk/study.yaml", checkout.folder / "config/studies/walk.yaml")
    fewer = "base: walk\ntables: {table1: {rows: [original, core]}}\nfigures: {figure2: null}\n"
    (checkout.folder / "config/studies/short.yaml").write_text(fewer)
    put_on_scratch(checkout, tmp_path / "scratch")
    target = "results/short/table1.csv"
    done = checkout.snakemake("--cores", "2", target)
    assert done.returncode == 0, done.stdout[-4000:]
    assert has_all_links(checkout)
    with (checkout.folder / target).open() as stream:
        assert len(list(csv.DictReader(stream))) == 2
    assert (tmp_path / "scratch/of/somebody" / target).is_file()
    assert checkout.planned(target) == {}
    done = checkout.python("-m", "corelib", "verify")
    assert done.returncode == 0 and "1 product, 0 faults" in done.stdout, done.stdout
    done = checkout.python("-m", "corelib", "clean", "cells", "--delete")
    assert done.returncode == 1, "no run has this name"
    done = checkout.python("-m", "corelib", "clean", "cells/core", "--delete")
    assert done.returncode == 0, done.stdout
    assert checkout.planned(target) == {"count_cells": 1, "tabulate": 1}
    assert not (checkout.folder / CONTROLLER_LEASE).exists()
