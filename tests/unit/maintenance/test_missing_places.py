"""Misspelt paths of images and models: the key that names the path, where it was looked for, and what is there."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest
from support.checkout import REPOSITORY, Checkout

from corelib.commands.preflight import preflight
from corelib.maintenance.asset_provision import Provision
from corelib.maintenance.missing_places import missing_place, missing_places
from corelib.study.loading import load_plan
from corelib.worlds.assets.image_index import RequiredImages

PETS = (
    "base: own\n"
    "world: {concepts: [cat, dog], assets: {images: data/fotos, pipeline: base/model, clip: /nowhere/clip}}\n"
    "prompts: {template: 'a {concept}', evaluation: ['a {concept}', '{concept}']}\n"
    "tasks: {NoCat: {forget: [cat], evaluation: {retain: [dog], seeds: [0, 1]}}}\n"
    "tables: {table1: {tasks: [NoCat], rows: [original, core]}}\n"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with some images."""
    for name in ("photos", "x", "a", "b", "c"):
        (tmp_path / "data" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("place", "clause"),
    [
        ("data/fotos", "in {here}; data has photos, a, b and 2 more"),
        ("dat/photos", "in {here}, which has data"),
        ("data/photos/cat/1.jpg", "in {here}; data/photos has no files"),
        ("{here}/data/photo", "{here}/data has photos, a, b and 2 more"),
    ],
)
def test_the_clause_names_the_folder_in_which_the_path_goes_wrong(place: str, clause: str, folder: Path) -> None:
    place, clause = place.format(here=folder), clause.format(here=folder)
    assert missing_place("world.assets.images", place) == (
        f"world.assets.images is {place}, which is missing ({clause})"
    )


def test_a_file_in_place_of_a_folder_and_a_broken_link_are_named(folder: Path) -> None:
    (folder / "file").touch()
    (folder / "link").symlink_to("/nowhere/else")
    assert missing_place("key", "file/below").endswith(f"(in {folder}; {folder}/file is a file)")
    assert missing_place("key", "link") == "key is link, a link to /nowhere/else, which is missing"


def test_a_path_to_which_something_is_downloaded_is_not_misspelt(folder: Path) -> None:
    keys = {"world.assets.images": "assets/Images/", "world.assets.clip": "clip", "world.assets.image_index": "index"}
    found = dict(missing_places(keys, {"world.assets.images": "assets/Images", "world.assets.clip": "assets/clip"}))
    assert list(found) == ["clip"]


@pytest.fixture
def configuration(folder: Path) -> Path:
    """A configuration with the study `pets`."""
    configuration = Path(shutil.copytree(REPOSITORY / "config", folder / "config"))
    (configuration / "studies/pets.yaml").write_text(PETS)
    return configuration


def test_preflight_and_make_assets_name_each_misspelt_path_once(configuration: Path, folder: Path) -> None:
    plan = load_plan("pets", configuration)
    clauses = [
        f"world.assets.images is data/fotos, which is missing (in {folder}; data has photos, a, b and 2 more)",
        f"world.assets.pipeline is base/model, which is missing (in {folder}, which has config, data)",
        "world.assets.clip is /nowhere/clip, which is missing (/ has ",
    ]
    first_findings = itertools.takewhile(
        lambda found: found.subject in ("place", "assets"), preflight(plan, REPOSITORY, configuration)
    )
    faults = [found.said for found in first_findings if found.subject == "assets"]
    for clause in clauses:
        assert sum(clause in fault and "; correct the path" in fault for fault in faults) == 1, faults
    assert sum(fault.endswith("; correct the path") for fault in faults) == 3 and len(faults) <= 4
    wanted = RequiredImages(["cat", "dog"], [], 1, False)
    provision = Provision(plan.asset_world.assets(), wanted, configuration, None, "raw", lambda _: None)
    with pytest.raises(Exception, match=r"world\.assets\.images") as caught:
        provision.make(again=False)
    assert all(clause in str(caught.value) for clause in clauses)


def test_a_run_stops_with_the_key_of_each_misspelt_path(tmp_path: Path) -> None:
    checkout = Checkout.at(tmp_path / "clone")
    (checkout.folder / "config/studies/pets.yaml").write_text(PETS)
    done = checkout.snakemake("--cores", "1", "results/pets/table1.csv")
    assert done.returncode == 1
    (error,) = [line for line in done.stdout.splitlines() if line.startswith("Error: ")]
    here = checkout.folder.resolve()
    assert f"world.assets.images is data/fotos, which is missing (in {here}, which has " in error
    assert "world.assets.clip is /nowhere/clip, which is missing (/ has " in error
    assert error.endswith("; correct the path in the study, or put the files there.")
    assert error.count("is missing") == 3
