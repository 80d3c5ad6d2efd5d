"""`clean` removes only runs, keeps the runs behind products in `results/`, and gives the reason for each removal."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support import hand_made

from corelib.commands import clean as command
from corelib.commands.cli import main
from corelib.errors import ArtefactError, ConfigurationError
from corelib.files.json_files import read_json, write_json
from corelib.maintenance import run_removal, unneeded_runs
from corelib.runs.layout import MANIFEST, RESULTS, RUNS, SPECIFICATION
from corelib.runs.lease import Lease, LeaseTaken
from corelib.runs.lease_owner import Owner, owner_as_json
from corelib.runs.requests import CONTROLLER_LEASE


@pytest.fixture(autouse=True)
def no_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory whose studies are missing, as after a checkout of another branch."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(unneeded_runs, "study_names", lambda _: [])
    monkeypatch.setattr(command, "check_addresses_certain", lambda _: None)


def clean(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The output of `clean --delete`."""
    assert main(["clean", *arguments, "--delete"]) == 0
    return capsys.readouterr().out


def unnamed_runs() -> list[str]:
    return [run.path.relative_to(RUNS).as_posix() for run in unneeded_runs.unnamed_runs(Path()).runs]


def write_precious_file(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "thesis.txt").write_text("precious")
    return path


NO_RUNS = [
    "backup/important",
    "notes",
    "backup/copy-0123456789ab",
    "unlearning/my-copy",
    "unlearning/core-0123456789ab.old",
    "unlearning/core-0123456789ab",
    "unlearning/Core-0123456789ab",
    ".trash/x",
]


@pytest.mark.parametrize("name", NO_RUNS)
def test_files_that_are_not_runs_are_kept_and_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = hand_made.write_run("unlearning", "core")
    precious = write_precious_file(RUNS / name)
    output = clean(capsys)
    assert (precious / "thesis.txt").exists() and not (RUNS / run).exists()
    (line,) = [line for line in output.splitlines() if line.startswith(f"  {RUNS / name.partition('/')[0]}")]
    assert line.endswith(".") and "Kept, because these are not runs:" in output


def test_a_link_is_kept_with_its_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = hand_made.write_run("unlearning", "core")
    shutil.move(RUNS / run, tmp_path / "elsewhere")
    (RUNS / run).symlink_to(tmp_path / "elsewhere")
    (RUNS / "fid").symlink_to(write_precious_file(tmp_path / "fid"))
    output = clean(capsys)
    assert (RUNS / run / MANIFEST).exists() and (RUNS / "fid/thesis.txt").exists()
    assert f"{RUNS / run}: a link." in output and "runs/fid: a link." in output


def test_a_copy_of_a_run_under_another_name_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    run = hand_made.write_run("unlearning", "core")
    digest = run.rpartition("-")[2]
    for copy in (f"unlearning/mine-{digest}", f"saliency/core-{digest}", "unlearning/core-0123456789ab"):
        shutil.copytree(RUNS / run, RUNS / copy)
    assert unnamed_runs() == [run]
    assert "its run does not have the name of the folder" in clean(capsys)


@pytest.mark.parametrize("damaged", ["", "{}", "[]", '{"stage": 1, "settings": [], "slug": {}}'])
def test_a_run_with_a_damaged_specification_is_removed_only_by_its_whole_name(damaged: str) -> None:
    run = hand_made.write_run("unlearning", "core")
    (RUNS / run / SPECIFICATION).write_text(damaged)
    assert unnamed_runs() == []
    with pytest.raises(ConfigurationError, match="no run in runs has this name"):
        unneeded_runs.runs_made_of(["unlearning/core"])
    assert [found.path for found in unneeded_runs.runs_made_of([run])] == [RUNS / run]


def test_a_complete_run_with_an_additional_file_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    run = hand_made.write_run("unlearning", "core")
    (RUNS / run / "thesis.txt").write_text("precious")
    output = clean(capsys)
    assert f"{RUNS / run}/thesis.txt: not part of the run" in output and (RUNS / run / "thesis.txt").exists()
    assert main(["clean", run, "--delete"]) == 1
    (RUNS / run / "thesis.txt").rename("thesis.txt")
    clean(capsys)
    assert not (RUNS / run).exists()


def test_partial_files_of_a_killed_process_are_removed(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("unlearning/core-0123456789ab", "unlearning/core-0123456789ac"):
        (RUNS / name).mkdir(parents=True)
    (RUNS / name / ".specification.json.x1.json").write_text("{")
    (RUNS / "unlearning/core-0123456789ad").mkdir()
    (RUNS / "unlearning/core-0123456789ad/.notes").touch()
    assert "partial files of a killed job:" in clean(capsys)
    assert [path.name for path in (RUNS / "unlearning").iterdir()] == ["core-0123456789ad"]


def test_an_unfinished_run_is_removed_and_named_unfinished(capsys: pytest.CaptureFixture[str]) -> None:
    run = hand_made.plan_run("unlearning", "core")
    (RUNS / run / "checkpoint.pt").touch()
    assert f"{RUNS / run}, not finished, planned 20" in clean(capsys)
    assert not (RUNS / run).exists()


def test_runs_of_a_product_in_results_are_kept_even_if_its_study_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = hand_made.write_study(RESULTS / "gone")
    other = hand_made.write_run("unlearning", "esd")
    output = clean(capsys)
    assert all((RUNS / name).exists() for name in runs.values()) and not (RUNS / other).exists()
    assert "no study here names them, but results/gone/figure2 and results/gone/table1 show them." in output
    assert "1 run, " in output and "no study here names them, but results/gone/figure2 shows them." in output
    shutil.rmtree(RESULTS)
    output = clean(capsys)
    assert not list(RUNS.glob("*/*"))
    assert "Made for figure2 and table1 of the study gone, which is not here; no study here names them:" in output
    assert f"{RUNS / runs['unlearning']}, finished 2026-01-02 03:04" in output


@pytest.mark.parametrize("lost", ["table1.json", "table1.provenance.json"])
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_one_of_the_two_records_of_a_product_is_enough_to_keep_its_runs(lost: str, how: str) -> None:
    hand_made.write_study(RESULTS / "gone")
    for file in (RESULTS / "gone").glob("figure2*"):
        file.unlink()
    path = RESULTS / "gone" / lost
    text = path.read_text()
    path.unlink() if how == "missing" else path.write_text(text.replace('"digest": "', '"digest": "0'))
    assert [name.partition("/")[0] for name in unnamed_runs()] == ["figures"]


def test_nothing_is_removed_while_the_runs_of_a_product_are_unknown() -> None:
    hand_made.write_study(RESULTS / "gone")
    for file in ("table1.json", "table1.provenance.json"):
        (RESULTS / "gone" / file).write_text("{}")
    with pytest.raises(ArtefactError, match=r"results/gone/table1\.json: neither it nor its provenance record names"):
        unneeded_runs.unnamed_runs(Path())


def test_an_input_with_a_damaged_name_is_found_by_its_digest() -> None:
    runs = hand_made.write_study(RESULTS / "gone")
    path = RUNS / runs["cells"] / SPECIFICATION
    content = read_json(path)
    content["builds_on"]["predictions"] = f"prediction3/{runs['predictions'].partition('/')[2]}"
    write_json(path, content)
    assert unnamed_runs() == []


def test_runs_that_an_active_job_reads_are_kept() -> None:
    runs = hand_made.write_study(RESULTS / "gone")
    shutil.rmtree(RESULTS)
    (RUNS / runs["predictions"] / MANIFEST).unlink()
    elsewhere = Owner.of_this_process().model_copy(update={"host": "elsewhere"})
    (RUNS / runs["predictions"] / "manifest.lease").write_text(owner_as_json(elsewhere))
    assert [name.partition("/")[0] for name in unnamed_runs()] == ["figures", "cells", "tables"]
    kept = {name: RUNS / runs[name] for name in ("predictions", "samples", "unlearning", "pipeline")}
    with pytest.raises(ConfigurationError, match="the run may be in progress"):
        unneeded_runs.runs_made_of([runs["pipeline"]])
    with pytest.raises(ConfigurationError, match="the run may be in progress"):
        run_removal.remove_run(unneeded_runs.Removable(kept["predictions"], 0))
    assert all(path.exists() for path in kept.values())


def test_snakemake_cannot_start_while_something_is_removed() -> None:
    with run_removal.folder_locked(), pytest.raises(LeaseTaken):
        Lease(CONTROLLER_LEASE).take(patience=0)
    refused = pytest.raises(ConfigurationError, match="Snakemake runs here")
    with Lease(CONTROLLER_LEASE).held(), refused, run_removal.folder_locked():
        pass
    assert not CONTROLLER_LEASE.exists()


def test_runs_are_selected_by_whole_words_of_their_names() -> None:
    core, other = (
        hand_made.write_run("unlearning", "core-forget01"),
        hand_made.write_run("unlearning", "core_live-forget01"),
    )
    ten = hand_made.write_run("unlearning", "core-forget010")
    for selector in ("core-forget01", "unlearning/core-forget01", f"runs/{core}/", core, core[:-5]):
        assert [run.path for run in unneeded_runs.runs_made_of([selector])] == [RUNS / core], selector
    assert [run.path for run in unneeded_runs.runs_made_of(["core"])] == sorted([RUNS / core, RUNS / ten])
    assert [run.path for run in unneeded_runs.runs_made_of(["core_live"])] == [RUNS / other]
    for selector in ("", "/", "runs", "runs/", "unlearning", "unlearning/", "cor", "unlearning/c", ".", "..", "*"):
        with pytest.raises(ConfigurationError, match="no run in runs has this name"):
            unneeded_runs.runs_made_of([selector])


def test_a_run_is_removed_with_its_results_in_every_study() -> None:
    runs = hand_made.write_study(RESULTS / "gone")
    hand_made.write_product(RESULTS, "table1", core=runs["cells"])
    other = hand_made.write_study(RESULTS / "other", "esd")
    found = [str(run.path) for run in unneeded_runs.runs_made_of([runs["unlearning"]])]
    manifests = ["results/gone/figure2.json", "results/gone/table1.json", "results/table1.json"]
    assert found[:3] == manifests  # these come first, so that after an interruption no table shows a removed run
    stages = [Path(path).parts[1] for path in found[3:]]
    assert stages == ["cells", "figures", "predictions", "samples", "tables", "tables", "unlearning"]
    assert not {str(RUNS / name) for name in other.values()} & set(found)
