"""The plan command: the jobs of Snakemake, the work of the paper's tables, and costs counted independently."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from support.checkout import REPOSITORY, TINY, Checkout
from support.full_format import FULL, build_autoencoder, build_unet
from torch.utils.flop_counter import FlopCounterMode

from corelib.commands.plan import OTHER_BASE_MODELS, as_text
from corelib.costs.device_time import GPUS
from corelib.costs.forecast import Forecast, forecast, forecast_of
from corelib.costs.workload import FLOP_COSTS, FORWARD_FLOP, NETWORKS, Workload
from corelib.models.trained_parameters import trained_parameters
from corelib.study.loading import load_plan, load_study
from corelib.study.staleness import Assessment
from corelib.study.study_files import study_names
from corelib.study.targets import targets_of

CONFIGURATION = REPOSITORY / "config"


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory in which nothing is built."""
    monkeypatch.chdir(tmp_path)


def forecast_for(*targets: str) -> Forecast:
    return forecast_of(targets, CONFIGURATION)[0]


# The paper's work, with nothing built


@pytest.mark.usefixtures("empty_folder")
def test_all_tables_take_the_steps_and_images_that_follow_from_the_paper() -> None:
    found = forecast_for(*(f"results/table{number}.csv" for number in range(1, 5)))
    assert (found.work.steps, found.work.images) == (382_250, 14_220)
    assert FLOP_COSTS.of(found.work) == pytest.approx(9.07e18, rel=0.01)
    hours = FLOP_COSTS.of(found.work) / GPUS[0].peak / 3600
    assert hours == pytest.approx(8.1, abs=0.1)
    assert hours / GPUS[0].share == pytest.approx(21, abs=0.5)


@pytest.mark.usefixtures("empty_folder")
def test_charts_figures_and_reports_add_no_cost() -> None:
    tables, everything = forecast_for(*(f"results/table{number}.csv" for number in range(1, 5))), forecast_for("all")
    assert everything.work == tables.work
    assert len(everything.runs) == len(tables.runs) + 9


@pytest.mark.usefixtures("empty_folder")
def test_tables_share_runs() -> None:
    apart = sum(forecast_for(f"results/table{number}.csv").work.steps for number in range(1, 5))
    default, core_on_forget06 = 37_500, 2_250  # rows of Table 4 and Table 3 that Table 1 has too
    assert apart == 382_250 + default + core_on_forget06


@pytest.mark.usefixtures("empty_folder")
def test_the_steps_of_one_table_equal_a_count_by_hand() -> None:
    """Table 3: 6 styles x 20 objects x 3 images, batches of four, 25 epochs; four rows."""
    assert forecast_for("results/table3.csv").work.steps == 4 * 25 * 6 * 20 * 3 // 4


@pytest.mark.usefixtures("empty_folder")
def test_core_step_and_guided_image_cost_what_the_paper_implies() -> None:
    trained = [item for item in forecast_for("results/table3.csv").items.values() if item.run.stage == "unlearning"]
    core = next(item for item in trained if item.run.slug.startswith("core-forget06"))
    assert FLOP_COSTS.of(core.work) / core.work.steps == pytest.approx(20.0e12, rel=0.01)
    image = Workload(forward_passes=2 * 100, decodes=1)
    assert FLOP_COSTS.of(image) == pytest.approx(163e12, rel=0.01)


@pytest.mark.usefixtures("empty_folder")
def test_the_longest_chain_goes_from_the_assets_through_the_gate_to_the_table() -> None:
    _, chain = forecast_for("all").longest_chain(FLOP_COSTS)
    stages = [run.stage for run in chain]
    assert stages[0] == "assets" and stages[-1] == "tables"
    assert stages.index("gate") < stages.index("unlearning")
    for before, after in itertools.pairwise(chain):
        assert before in (*after.inputs.values(), *after.after.values())


# Comparison with Snakemake


@pytest.mark.parametrize(
    "study",
    [
        pytest.param(name, marks=() if name in ("paper", "mini-seeds") else pytest.mark.slow)
        for name in study_names(CONFIGURATION)
    ],
)
def test_the_jobs_equal_those_of_a_dry_run(study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = Checkout.at(tmp_path / "clone")
    targets = targets_of(study, load_study(study, CONFIGURATION))
    planned = checkout.planned(*targets)
    monkeypatch.chdir(checkout.folder)
    assert dict(forecast_for(*targets).jobs) == planned


def test_complete_runs_are_not_counted(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout.folder)
    assert forecast_for(*TINY).items == {}
    assert as_text(*forecast_of(TINY, CONFIGURATION)).startswith("Nothing to do")

    everything = forecast_for(*TINY).runs.values()
    core = next(run for run in everything if run.stage == "samples" and run.slug.startswith("core-forget02"))
    delta = core.inputs["delta"]
    shutil.rmtree(delta.folder)
    assert dict(forecast_for(*TINY).jobs) == checkout.planned(*TINY), "complete runs do not need their missing inputs"

    for run in everything:
        if core.name in run.with_all_inputs():
            shutil.rmtree(run.folder, ignore_errors=True)
    checkout.folder.joinpath("results/tiny/table1.csv").unlink()
    jobs = forecast_for(*TINY).jobs
    assert dict(jobs) == checkout.planned(*TINY)
    assert jobs["unlearn"] == 1 and jobs["tabulate"] == 1
    assert forecast_for(*TINY).work.steps == delta.settings.length.steps  # type: ignore[attr-defined]
    assert forecast_for(*TINY).work.images == len(core.settings.grid)  # type: ignore[attr-defined]


def test_sampled_batches_are_subtracted_from_their_shard(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout.folder)
    core = next(
        run for run in forecast_for(*TINY).runs.values() if run.stage == "samples" and run.slug.startswith("core")
    )
    for run in forecast_for(*TINY).runs.values():
        if core.name in run.with_all_inputs():
            run.manifest.unlink(missing_ok=True)
    (checkout.folder / "results/tiny/table1.json").unlink()
    shards = sorted((core.folder / "shards").glob("*-of-*[0-9].json"))
    shards[0].unlink()
    assert forecast_for(*TINY).jobs["sample_shard"] == 1
    assert forecast_for(*TINY).work.images == 0, "all its images exist"
    (core.folder / "batches/00000.json").unlink()
    assert forecast_for(*TINY).work.images == core.settings.sampling.batch  # type: ignore[attr-defined]
    assert dict(forecast_for(*TINY).jobs) == checkout.planned(*TINY)


# The command


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["results/table9.csv"], "study 'paper' has no such product, expected one of table1"),
        (["results/paper/table1.csv"], "expected results/table1, since the paper's products are in results"),
        (["runs/fid/x/manifest.json"], "expected a table or figure, such as results/table1.csv, or all"),
        (["results/nobody/table1.csv"], "nobody"),
        (
            ["results/table1.csv", "results/mini/table1.csv"],
            "belong to two worlds; request those of one world at a time",
        ),
    ],
)
def test_a_wrong_target_is_reported_in_one_sentence(targets: list[str], expected: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "corelib", "plan", *targets]
    environment = {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("Error: ") and len(done.stderr.splitlines()) == 1
    assert expected in done.stderr


@pytest.mark.usefixtures("empty_folder")
def test_the_text_names_hours_disk_and_chain() -> None:
    text = as_text(*forecast_of(["results/table1.csv"], CONFIGURATION))
    assert "EFLOP" in text and "A100" in text and "H100" in text and "longest chain" in text
    assert OTHER_BASE_MODELS not in text
    text = as_text(*forecast_of(["results/mini/table1.csv"], CONFIGURATION))
    assert OTHER_BASE_MODELS not in text
    assert "minutes of one CPU core" in text and "EFLOP" not in text


def test_the_costs_of_a_base_model_of_the_users_begin_with_the_model_that_was_counted(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    for name in ("config.yaml", "presets", "published.csv", "claims.yaml"):
        (tmp_path / name).symlink_to(CONFIGURATION / name)
    (tmp_path / "studies/pets.yaml").write_text(
        "base: own\n"
        "world: {concepts: [cat, dog], assets: {images: photos, pipeline: base, clip: clip}}\n"
        "prompts: {template: 'a {concept}', evaluation: ['a {concept}', '{concept}']}\n"
        "tasks: {NoCat: {forget: [cat], evaluation: {retain: [dog], seeds: [0, 1]}}}\n"
        "tables: {table1: {tasks: [NoCat], rows: [original, core]}}\n"
    )
    lines = as_text(*forecast_of(["results/pets/table1.csv"], tmp_path)).splitlines()
    assert lines[:2] == [OTHER_BASE_MODELS, "results/pets/table1"] and lines.count(OTHER_BASE_MODELS) == 1


# The costs themselves


def flop_of(function: object) -> float:
    with FlopCounterMode(display=False) as counter:
        function()  # type: ignore[operator]
    return float(counter.get_total_flops())


def test_the_costs_equal_those_of_the_networks_counted_operation_by_operation() -> None:
    with torch.device("meta"):
        unet, autoencoder = build_unet(FULL).requires_grad_(False), build_autoencoder(FULL).requires_grad_(False)
        noisy, step, prompt = torch.zeros(1, 4, 64, 64), torch.zeros(1, dtype=torch.long), torch.zeros(1, 77, 768)
        image = torch.zeros(1, 3, 512, 512)

        def forward() -> torch.Tensor:
            return unet(noisy, step, encoder_hidden_states=prompt).sample

        assert flop_of(forward) == pytest.approx(FORWARD_FLOP, rel=1e-3)
        assert flop_of(lambda: autoencoder.decode(noisy)) == pytest.approx(FLOP_COSTS.decodes, rel=1e-3)
        assert flop_of(lambda: autoencoder.encode(image)) == pytest.approx(FLOP_COSTS.encodes, rel=1e-3)
        classifier = timm.create_model(FULL.classifier, num_classes=51).requires_grad_(False)
        assert flop_of(lambda: classifier(torch.zeros(1, 3, 224, 224))) == pytest.approx(
            FLOP_COSTS.classifications, rel=1e-3
        )
        for parameter in trained_parameters(unet, "cross_attention").values():
            parameter.requires_grad_(True)
        assert flop_of(lambda: forward().sum().backward()) == pytest.approx(FLOP_COSTS.train_passes, rel=1e-3)
        trained = sum(parameter.numel() for parameter in trained_parameters(unet, "cross_attention").values())
    assert trained == NETWORKS["unlearn_canvas"].trained


@pytest.mark.parametrize("name", ["table1.md", "table1.provenance.json"])
def test_a_missing_file_of_a_product_is_a_fault_and_a_missing_product_is_none(name: str) -> None:
    table, place = load_plan("tiny", CONFIGURATION).table("table1"), "results/tiny/table1"
    manifest = Path(f"{place}.json")
    for reason, faults in (
        (f"results/tiny/{name} is missing", {table.name: f"results/tiny/{name} is missing"}),
        (f"{manifest} is missing", {}),
    ):
        found = forecast({place: table}, "miniature", Assessment(products={manifest: reason}))
        assert found.faults == faults
