"""The export of a study's numbers: the same as in its products, with what is behind each, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from support.checkout import link_configuration
from support.evaluated_study import build_products

from corelib.commands import export
from corelib.commands.cli import main
from corelib.maintenance import results_export
from corelib.maintenance.results_export import COLUMNS, METRICS
from corelib.study.loading import load_plan
from corelib.study.plan import Plan

STUDY = """\
base: tiny
training: {seeds: [0, 1]}
tasks:
  Second: {like: Forget01, after: Forget01, forget: [Crimson_Checks]}
  Both: {like: Forget01, forget: [Crimson_Checks, Cobalt_Stripes]}
tables:
  table1: {rows: [original, core, retrained]}
  table_pairs:
    tasks: [Forget01]
    rows: [{name: core_pairs, method: core, title: "CORE\\n(pairs)", anchors: {Cobalt_Stripes: Amber_Checks}}]
    published: null
figures: {figure2: null}
probes:
  probe_inversion:
    {kind: inversion, tasks: [Forget01], rows: [original, core], objects: [Circles], seeds: [188],
     images: 1, steps: [3], learning_rate: 0.1, batch: 2, start: mean}
sequences:
  sequence1: {tasks: [Forget01, Second], at_once: [Forget01, Both], rows: [original, core]}
"""


BUILT = ["table1", "distances1", "probe_inversion", "sequence1"]
DIVERGED = {
    "inversion/core-forget01-one_to_one-s1": {"diverged_at": 2},
    "unlearning/core-second-one_to_one-s1": {"diverged_at": 4},
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with all products of a study but one table."""
    folder = tmp_path_factory.mktemp("export")
    configuration = link_configuration(folder / "config")
    (configuration / "studies/seeds.yaml").write_text(STUDY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        build_products(load_plan("seeds", configuration), BUILT, DIVERGED)
    return folder


@pytest.fixture
def plan(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(export, "CONFIGURATION", workplace / "config")
    return load_plan("seeds", workplace / "config")


def exported(folder: Path) -> tuple[pd.DataFrame, dict]:
    """The numbers as CSV, and the content of the JSON file."""
    assert main(["export", "results", "seeds", str(folder)]) == 0
    lists = dict.fromkeys(["diverged_at", "search_diverged_at"], str)
    return pd.read_csv(folder / "results.csv", dtype=lists), json.loads((folder / "results.json").read_text())


def test_every_number_of_a_table_is_exported_with_its_count_and_interval(plan: Plan, tmp_path: Path) -> None:
    numbers, _ = exported(tmp_path / "out")
    cells = pd.read_csv("results/seeds/table1.cells.csv")
    found = numbers[numbers["kind"] == "table"].reset_index(drop=True)
    same = ["task", "row", "metric", "k", "n", "value", "sd", "low", "high", "interval", "flagged", "gate"]
    pd.testing.assert_frame_equal(found[same], cells[same], check_dtype=False)
    seeds = cells["seed"].fillna("").astype(str)
    expected = [(None, 2) if seed == "all" else (None, 0) if not seed else (float(seed), 1) for seed in seeds]
    assert [(None if pd.isna(seed) else seed, count) for seed, count in zip(found.seed, found.seeds, strict=True)] == (
        expected
    )


def test_every_distance_is_exported_with_its_run(plan: Plan, tmp_path: Path) -> None:
    numbers, _ = exported(tmp_path / "out")
    distances = pd.read_csv("results/seeds/distances1.csv").rename(columns={"images": "set", "measure": "metric"})
    found = numbers[numbers["kind"] == "distances"].reset_index(drop=True)
    same = ["task", "row", "seed", "retrained_seed", "set", "metric", "timestep", "k", "n", "value"]
    pd.testing.assert_frame_equal(found[same], distances[same], check_dtype=False)
    assert set(found["runs"]) == {run.name for run in plan.comparison("table1").inputs.values()}


def test_every_count_of_a_probe_is_exported_with_its_search(plan: Plan, tmp_path: Path) -> None:
    numbers, content = exported(tmp_path / "out")
    counts = pd.read_csv("results/seeds/probe_inversion.csv")
    found = numbers[numbers["kind"] == "probe"].reset_index(drop=True)
    same = ["task", "row", "condition", "style", "k", "n", "value", "low", "high", "interval", "flagged"]
    pd.testing.assert_frame_equal(found[same], counts[same], check_dtype=False)
    (one,) = [
        record
        for record in content["records"]
        if (record["condition"], record["row"], record["seed"], record["style"]) == ("3 steps", "core", 1, "all")
    ]
    assert (one["diverged_at"], one["search_diverged_at"], one["commits"]) == ([], [2], ["c0ffee"])
    stages = [run.split("/")[0] for run in one["runs"]]
    assert stages == ["unlearning", "inversion", "samples", "predictions"]


def test_every_count_of_a_sequence_is_exported_with_its_step_way_and_task(plan: Plan, tmp_path: Path) -> None:
    numbers, content = exported(tmp_path / "out")
    counts = pd.read_csv("results/seeds/sequence1.csv").rename(columns={"measure": "metric"})
    found = numbers[numbers["kind"] == "sequence"].reset_index(drop=True)
    same = ["step", "forgotten", "row", "way", "task", "metric", "style", "k", "n", "value", "low", "high", "interval"]
    pd.testing.assert_frame_equal(found[same], counts[same], check_dtype=False)
    later = {
        record["way"]: record
        for record in content["records"]
        if (record["step"], record["metric"], record["row"], record["seed"], record["style"])
        == ("Second", "UA earlier", "core", 1, "all")
    }
    assert {way: (record["task"], record["diverged_at"]) for way, record in later.items()} == {
        "in sequence": ("Second", [4]),
        "at once": ("Both", []),
    }
    behind = {way: [run.rpartition("-")[0] for run in record["runs"]] for way, record in later.items()}
    assert behind["in sequence"][:2] == [f"unlearning/core-{task}-one_to_one-s1" for task in ("forget01", "second")]
    assert [name.split("/")[0] for name in behind["at once"]] == ["unlearning", "samples", "predictions"]
    assert {record["forgotten"] for record in later.values()} == {2}


def test_both_files_have_the_same_records(plan: Plan, tmp_path: Path) -> None:
    numbers, content = exported(tmp_path / "out")
    assert list(numbers.columns) == list(COLUMNS)
    records = pd.DataFrame(content["records"], columns=COLUMNS)
    for column in COLUMNS:
        plain = records[column].map(lambda value: " ".join(map(str, value)) if isinstance(value, list) else value)
        left, right = numbers[column].fillna("").astype(str), plain.fillna("").astype(str)
        assert list(left) == list(right), column


def test_a_number_names_the_runs_and_commits_behind_it(plan: Plan, tmp_path: Path) -> None:
    _, content = exported(tmp_path / "out")
    of_core = [record for record in content["records"] if (record["row"], record["metric"]) == ("core", "UA")]
    one, other, both = [record for record in of_core if record["task"] == "Forget01"]
    cells = [plan.cells("Forget01", "core", None, seed).name for seed in (0, 1)]
    assert (one["runs"][-1], other["runs"][-1], both["runs"][-2:]) == (*cells, cells)
    stages = [run.split("/")[0] for run in one["runs"]]
    assert stages == ["unlearning", "samples", "predictions", "cells"]
    assert set(both["runs"]) == {*one["runs"], *other["runs"]}
    assert (one["commits"], one["version"]) == (["c0ffee"], "0.1.0")
    assert (one["method"], one["title"], one["anchors"]) == ("core", "CORE (ours)", "one_to_one")


def test_the_header_explains_every_metric_and_says_what_is_missing(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers, content = exported(tmp_path / "out")
    header = content["header"]
    assert (header["format_version"], header["study"], header["world"]) == (1, "seeds", "miniature")
    assert set(numbers["metric"]) <= header["metrics"].keys() == METRICS.keys()
    assert header["products"].keys() == set(BUILT) == set(numbers["product"])
    assert header["missing"] == {"table_pairs": "results/seeds/table_pairs.json is missing"}
    assert capsys.readouterr().out == (
        f"{tmp_path}/out\n{len(numbers)} numbers of {', '.join(BUILT)}; "
        f"not built or not up to date: table_pairs ({tmp_path}/out/results.json says why)\n"
    )


def test_a_product_that_is_not_up_to_date_is_not_exported(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = Path("results/seeds/table1.cells.csv")
    before = cells.read_text()
    cells.write_text(before.replace("Wilson", "Wilsom"))
    try:
        numbers, content = exported(tmp_path / "out")
    finally:
        cells.write_text(before)
    assert set(numbers["product"]) == {*BUILT} - {"table1"}
    assert content["header"]["missing"]["table1"] == f"{cells} has changed since it was written"


def test_a_product_whose_files_have_other_columns_is_refused_in_one_sentence(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results_export, "product_fault", lambda path, _: None if path.stem == "table1" else "missing")
    cells = Path("results/seeds/table1.cells.csv")
    before = cells.read_text()
    cells.write_text(before.replace("metric", "measure", 1))
    try:
        assert main(["export", "results", "seeds", str(tmp_path / "out")]) == 1
    finally:
        cells.write_text(before)
    assert capsys.readouterr().err == (
        "Error: results/seeds/table1.json: its CSV files are not those of such a product ('metric'); delete it and ask "
        "for the target again.\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_row_with_pairs_of_anchors_is_exported_with_its_method(plan: Plan, tmp_path: Path) -> None:
    build_products(plan, ["table_pairs"])
    try:
        numbers, _ = exported(tmp_path / "out")
    finally:
        Path("results/seeds/table_pairs.json").unlink()
    found = numbers[numbers["product"] == "table_pairs"]
    assert {(*row,) for row in found[["row", "method", "title", "anchors"]].to_numpy()} == {
        ("core_pairs", "core", "CORE (pairs)", "pairs")
    }


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["seeds", "config"], "config: it already exists, expected the name of a new folder."),
        (["seeds", "core", "out"], "seeds core: expected the name of one study, such as mini."),
        (
            ["tiny", "out"],
            "study tiny: none of its tables, probes and sequences is up to date (results/tiny/table1.json is missing); "
            "build one: snakemake results/tiny/table1.csv.",
        ),
        (["nosuch", "out"], "config/studies/nosuch.yaml: "),
    ],
)
def test_an_export_is_refused_in_one_sentence(
    words: list[str], expected: str, plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "results", *words]) == 1
    assert expected in capsys.readouterr().err
    assert not Path("out").exists()
