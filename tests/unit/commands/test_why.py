"""`why` names the leaf of the study that has changed, with the values that the user has written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.checkout import link_configuration

from corelib.commands import why
from corelib.commands.cli import main
from corelib.files.sealed_json import write_record
from corelib.runs.layout import SPECIFICATION
from corelib.study.loading import load_plan

TABLES = (
    "tables: {table1: {tasks: [Forget06], rows: [original, salun, core]}, table2: null, table3: null, table4: null}"
)


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the study `small`, of three rows, looks as if it was built."""
    folder = link_configuration(tmp_path / "config")
    (folder / "studies/small.yaml").write_text(f"base: mini\n{TABLES}\nfigures: {{figure2: null, figure3: null}}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(why, "CONFIGURATION", folder)
    for run in load_plan("small", folder).table("table1").with_all_inputs().values():
        write_record(run.folder / SPECIFICATION, run.specification)
        run.manifest.write_text(json.dumps({}))
    return folder


CORE = "unlearning core-forget06-one_to_one-s0"


@pytest.mark.parametrize(
    ("edit", "cause", "difference", "beside"),
    [
        ("methods: {core: {learning_rate: 5e-6}}", CORE, "methods.core.learning_rate: 1e-5 -> 5e-6", CORE),
        ("training: {scale: {learning_rate: 25}}", CORE, "training.scale.learning_rate: 50 -> 25", CORE),
        (
            "methods: {core: {length: {Forget06: {epochs: 2500}}}}",
            CORE,
            "methods.core.length.Forget06.epochs: 25 -> 2500",
            CORE,
        ),
        (
            "methods: {core: {objective: {retain: {weight: 0.5}}}}",
            CORE,
            "methods.core.objective.retain.weight: 1 -> 0.5",
            CORE,
        ),
        ("training: {seeds: [1]}", "unlearning core-forget06-one_to_one-s1", "training seed: 0 -> 1", CORE),
        (
            "methods: {core: {anchors: {Forget06: five_to_one}}}",
            "unlearning core-forget06-five_to_one-s0",
            "methods.core.anchors.Forget06: one_to_one -> five_to_one",
            CORE,
        ),
        (
            "methods: {gentle: {like: core, learning_rate: 5e-6}}\ntables: {table1: {rows: [core, gentle]}}",
            "unlearning gentle-forget06-one_to_one-s0",
            "methods.gentle.learning_rate: 1e-5 -> 5e-6",
            CORE,
        ),
        (
            "tables: {table1: {rows: [{name: base, method: core, anchors: all_to_one}]}}",
            "unlearning core-forget06-all_to_one-s0",
            "anchors of the row base: one_to_one -> all_to_one",
            CORE,
        ),
        (
            "methods: {salun: {saliency: {keep: 0.3}}}",
            "saliency salun-forget06-s0",
            "methods.salun.saliency.keep: 0.5",
            "",
        ),
        (
            "sampling: {scheduler: {steps: 10}}",
            "samples original",
            "sampling.scheduler.steps: 20 -> 10",
            "samples original",
        ),
        ("training: {images: [1, 2]}", "slices forget06", "training.images: [1, 2, 3] -> [1, 2]", "slices forget06"),
        (
            "tasks: {Forget06: {objects: [Stars, Hearts]}}",
            "slices forget06",
            "tasks.Forget06.objects: [",
            "slices forget06",
        ),
        (
            "sampling: {scheduler: {clip_sample: true}}",
            "samples original",
            "sampling.scheduler.clip_sample: false -> true",
            "samples original",
        ),
    ],
)
def test_the_leaf_of_a_study_is_named_with_its_values(
    edit: str, cause: str, difference: str, beside: str, configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (configuration / "studies/other.yaml").write_text(f"base: small\n{edit}\n")
    assert main(["why", "results/other/table1.csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    reasons = {lines[index - 1]: line.strip() for index, line in enumerate(lines) if line.startswith("    ")}
    (reason,) = [reason for name, reason in reasons.items() if name.startswith(cause)]
    assert reason.startswith(difference), lines
    assert f"(compared with {beside.partition(' ')[2]}" in reason
    assert "no earlier run" not in "".join(reasons.values())


def test_a_run_is_compared_with_the_base_even_if_another_one_is_nearer(
    configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nearer = configuration / "studies/nearer.yaml"
    nearer.write_text("base: small\nmethods: {core: {learning_rate: 5e-6, batch: 8}}\n")
    run = load_plan("nearer", configuration).unlearning("Forget06", "core", None)
    write_record(run.folder / SPECIFICATION, run.specification)
    run.manifest.write_text("{}")
    nearer.write_text("base: small\nmethods: {core: {learning_rate: 4e-6, batch: 8}}\n")
    assert main(["why", "results/nearer/table1.csv", "Forget06", "core"]) == 0
    output = capsys.readouterr().out
    assert "methods.core.batch: 4 -> 8; methods.core.learning_rate: 1e-5 -> 4e-6" in output


def test_an_edited_study_is_compared_with_its_own_runs(configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = configuration / "studies/small.yaml"
    small.write_text(f"{small.read_text()}methods: {{core: {{learning_rate: 2e-5}}}}\n")
    assert main(["why", "results/small/table1.csv", "Forget06", "core"]) == 0
    assert "    methods.core.learning_rate: 1e-5 -> 2e-5 (compared with core-forget06-" in capsys.readouterr().out


def test_a_run_is_not_compared_with_one_of_another_kind_of_world(
    configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (configuration / "studies/pets.yaml").write_text(
        "base: own\n"
        "world: {concepts: [cat, dog], assets: {images: photos, pipeline: base, clip: clip}}\n"
        "prompts: {template: 'a {concept}', evaluation: ['a {concept}']}\n"
        "tasks: {Forget06: {forget: [cat], evaluation: {retain: [dog], seeds: [0, 1]}}}\n"
        "tables: {table1: {tasks: [Forget06], rows: [original, core]}}\n"
    )
    assert main(["why", "results/pets/table1.csv"]) == 0
    output = capsys.readouterr().out
    assert "unlearning core-forget06-" in output and "there is no earlier run to compare with" in output
    assert "(compared with" not in output
