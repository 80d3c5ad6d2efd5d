"""A row of a table is a name for a run, whatever else is built: of `export`, `clean`, `why`, `plan`, `jobs`, `logs`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.checkout import link_configuration

from corelib.commands import arguments as command_arguments
from corelib.commands import clean, export, jobs, logs
from corelib.commands.cli import main
from corelib.costs.forecast import forecast_of
from corelib.errors import ConfigurationError
from corelib.files.sealed_json import write_record
from corelib.maintenance import run_export
from corelib.runs.layout import SPECIFICATION
from corelib.runs.lease_owner import Owner, owner_as_json
from corelib.runs.run import Run
from corelib.study.loading import load_plan
from corelib.study.row_names import models_of_row, only_model_of_row

ROW = ["results/mini/table1.csv", "Forget25", "core"]


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a configuration of its own: the shipped one, and a study with another learning rate."""
    folder = link_configuration(tmp_path / "config")
    (folder / "studies/gentler.yaml").write_text("base: mini\nmethods: {core: {learning_rate: 5e-6}}\n")
    (folder / "studies/seeds.yaml").write_text("base: mini\ntraining: {seeds: [0, 1]}\n")
    monkeypatch.chdir(tmp_path)
    for module in (command_arguments, clean, export, jobs, logs):
        monkeypatch.setattr(module, "CONFIGURATION", folder)
    return folder


def build(*runs: Run) -> None:
    """Write what `export` and `clean` see of complete runs."""
    for run in runs:
        write_record(run.folder / SPECIFICATION, run.specification)
        run.manifest.write_text(json.dumps({}))


def unlearning(study: str, configuration: Path) -> Run:
    return load_plan(study, configuration).unlearning("Forget25", "core", None, None)


def exported(monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """The run that `export model` would export."""
    runs: list[str] = []
    monkeypatch.setattr(run_export, "export_model", lambda run, _: runs.append(run))
    assert main(["export", "model", *words, "out"]) == 0
    return runs[0]


def test_a_row_names_one_run_even_if_another_learning_rate_is_built(
    configuration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = unlearning("mini", configuration), unlearning("gentler", configuration)
    assert one.slug == other.slug and one.name != other.name
    build(one, other)
    with pytest.raises(ConfigurationError, match=r"2 complete runs .* name the row of a table instead"):
        run_export.export_model(one.slug, Path("out"))
    assert exported(monkeypatch, *ROW) == one.name
    assert exported(monkeypatch, "results/gentler/table1.csv", "Forget25", "core") == other.name
    assert exported(monkeypatch, "results/mini/figure2.png", "Forget25", "core") == one.name


def test_the_beginning_of_a_name_for_export_ends_at_a_hyphen(configuration: Path) -> None:
    plan = load_plan("mini", configuration)
    build(plan.unlearning("Forget06", "core_live_target", None))
    with pytest.raises(ConfigurationError, match="core: there is no such run in runs/unlearning"):
        run_export.export_model("core", Path("out"))


@pytest.mark.usefixtures("configuration")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (ROW, "mini/table1.csv Forget25 core 0: its run runs/unlearning/core-forget25-one_to_one-s0-"),
        ([*ROW[:2], "cor"], "results/mini/table1.csv: it has no row 'cor', expected `core`."),
        ([ROW[0], "Forget2", "core"], "results/mini/table1.csv: it has no task 'Forget2', expected `Forget25`."),
        ([*ROW, "7"], "the training seed of Forget25 core is '7', expected one of 0."),
        ([*ROW[:2], "original"], "it is the original model; choose the row of an unlearned model."),
        (["results/mini/tabel1.csv", *ROW[1:]], "no such table or figure, expected `table1`, or else one of table2"),
        (ROW[:2], "results/mini/table1.csv Forget25: expected PRODUCT TASK ROW [SEED], such as"),
        (["results/mini/x/table1.csv", *ROW[1:]], "expected a table or figure, such as results/mini/table1.csv."),
        (["results/seeds/table1.csv", *ROW[1:]], "the row has several training seeds; add one of 0, 1."),
        (["core", "esd"], "core esd: expected one run, or a row: PRODUCT TASK ROW [SEED], such as"),
    ],
)
def test_a_row_that_cannot_be_exported_is_refused_in_one_sentence(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "model", *words, "out"]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_each_training_seed_of_a_row_has_runs_of_its_own(configuration: Path) -> None:
    models = models_of_row(["results/seeds/table1.csv", "Forget25", "core"], configuration)
    assert [model.label.split()[-1] for model in models] == ["0", "1"]
    assert models[0].model.name == unlearning("mini", configuration).name
    second = only_model_of_row(["results/seeds/charts1.values.png", "Forget25", "core", "1"], configuration)
    assert second.model.name == models[1].model.name != models[0].model.name


def test_a_row_knows_all_its_runs_in_the_order_of_the_data(configuration: Path) -> None:
    found = only_model_of_row([*ROW[:2], "salun"], configuration)
    assert list(found.runs) == ["saliency", "unlearning", "samples", "predictions", "fid", "cells"]
    assert next(iter(only_model_of_row([*ROW[:2], "original"], configuration).runs)) == "samples"


def test_clean_removes_the_runs_of_a_row_and_nothing_of_another(
    configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = unlearning("mini", configuration), unlearning("gentler", configuration)
    live = load_plan("mini", configuration).unlearning("Forget06", "core_live_target", None)
    build(one, other, live)
    assert main(["clean", *ROW]) == 0
    output = capsys.readouterr().out
    assert str(one.folder) in output and str(other.folder) not in output
    assert main(["clean", "unlearning/core"]) == 0
    output = capsys.readouterr().out
    assert str(one.folder) in output and str(other.folder) in output and str(live.folder) not in output
    assert main(["clean", *ROW[:2], "esd"]) == 1
    assert "is not here, so there is nothing to remove." in capsys.readouterr().err


def test_an_invalid_study_does_not_keep_clean_from_removing_a_row(
    configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(unlearning("mini", configuration))
    (configuration / "studies/unfinished.yaml").write_text("methods: {core: {learning_rate: }}\n")
    assert main(["clean", *ROW]) == 0
    capsys.readouterr()
    assert main(["clean"]) == 1
    error = capsys.readouterr().err
    file = configuration / "studies/unfinished.yaml"
    assert error.startswith(
        f"Error: {file}: methods.core.learning_rate is null, expected a number; `clean` reads every"
    )
    assert "the runs of a study that it cannot read would count as unused" in error
    assert f"correct {file} or move it out of its folder, or name the runs to remove" in error
    assert error.count("\n") == 1


def test_the_cost_of_a_row_is_that_of_its_runs_alone(configuration: Path) -> None:
    row, kind = forecast_of(ROW, configuration)
    table, _ = forecast_of(ROW[:1], configuration)
    steps = [item.work.steps for item in row.items.values() if item.run.stage == "unlearning"]
    assert kind == "miniature" and len(steps) == 1 and row.work.steps == steps[0] < table.work.steps
    assert list(row.asked) == ["results/mini/table1.csv Forget25 core 0"]


def test_why_explains_a_row_alone(configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", *ROW]) == 0
    causes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("unlearning ")]
    assert len(causes) == 1 and causes[0].startswith("unlearning core-forget25-one_to_one-s0")


def test_the_logs_of_a_row_are_those_of_its_runs(configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = only_model_of_row(ROW, configuration).runs
    expected = [
        Path(f"logs/{runs['unlearning'].name}.log"),
        Path(f"logs/{runs['samples'].name}/0000-of-0002.log"),
        Path(f"logs/{runs['samples'].name}/gather.log"),
    ]
    other = Path(f"logs/{unlearning('gentler', configuration).name}.log")
    for log in (*expected, other):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
    assert main(["logs", *ROW]) == 0
    assert capsys.readouterr().out.splitlines() == list(map(str, expected))
    assert main(["logs", "unlearning/core"]) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(map(str, (expected[0], other)))
    assert main(["logs", *ROW[:2], "esd"]) == 1
    assert "no log in logs/, because no job of it has started yet." in capsys.readouterr().err


def test_jobs_of_other_rows_are_not_listed(
    configuration: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in (unlearning("mini", configuration), unlearning("gentler", configuration)):
        run.folder.mkdir(parents=True)
        (run.folder / "manifest.lease").write_text(owner_as_json(Owner.of_this_process()))
    monkeypatch.setattr(jobs, "queued_jobs", lambda _: [])
    assert main(["jobs", *ROW]) == 0
    output = capsys.readouterr().out
    assert unlearning("mini", configuration).name in output
    assert unlearning("gentler", configuration).name not in output
    assert main(["jobs", *ROW[:2], "esd"]) == 0
    assert capsys.readouterr().out == "No job of results/mini/table1.csv Forget25 esd is running here.\n"
