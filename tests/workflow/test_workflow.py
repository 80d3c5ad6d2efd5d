"""The workflow as users run it: one command, no work done twice, and exactly the rebuilds that a change needs."""

from __future__ import annotations

import base64
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from scipy.stats import binomtest
from support.checkout import REPOSITORY, TINY, Checkout

from corelib.files.hashing import sha256_of_path
from corelib.files.sealed_json import sealed
from corelib.runs.layout import MANIFEST
from corelib.runs.manifest import read_manifest
from corelib.study.study_files import study_names

AFTER_UNLEARNING = {"sample_shard", "gather_samples", "classify_images", "measure_fid", "count_cells"}
CORES_RUNS = {
    "unlearn": 2,
    "sample_shard": 4,
    "gather_samples": 2,
    "classify_images": 2,
    "measure_fid": 2,
    "count_cells": 2,
    "tabulate": 1,
    "draw": 1,
}
"""CORE has a run in each of the tiny study's two tasks; 18 and 20 images in batches of 16 are two shards each."""
REPORTING = {
    "table": "tabulate",
    "charts": "draw_charts",
    "figure": "draw",
    "gate": "report_gate",
    "claims": "evaluate_claims",
    "report": "write_report",
}
"""The rule that makes a product, by the beginning of its name."""


def hashes_below(folder: Path) -> dict[str, str]:
    """The hashes of all files in a folder, except provenance records."""
    return {
        str(path.relative_to(folder)): sha256_of_path(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "provenance" not in path.name
    }


# The products


def test_the_tiny_study_ends_with_a_table_in_the_papers_columns(built: Checkout) -> None:
    with (built.folder / "results/tiny/table1.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    metrics = ["UA", "IRA", "CRA", "SFID", "Total"]
    assert list(rows[0]) == ["Task", "Algorithm", *metrics, "Seeds", *(f"{name} sd" for name in metrics), "Remark"]
    assert [(row["Task"], row["Algorithm"]) for row in rows] == [
        (task, title) for task in ("Forget01", "Forget02") for title in ("Original", "ESD", "CORE (ours)")
    ]
    assert all(row["SFID"] == "100.00" for row in rows if row["Algorithm"] == "Original")


def test_every_cell_counts_the_images_of_its_grid(built: Checkout) -> None:
    with (built.folder / "results/tiny/table1.cells.csv").open() as stream:
        cells = {(row["task"], row["row"], row["metric"]): row for row in csv.DictReader(stream)}
    for row in ("original", "esd", "core"):
        # Forget01: 1 + 2 styles x 3 objects x 2 seeds; Forget02: 2 + 3 styles x 4 objects x 1 seed
        assert [int(cells["Forget01", row, metric]["n"]) for metric in ("UA", "IRA", "CRA")] == [6, 12, 18]
        assert [int(cells["Forget02", row, metric]["n"]) for metric in ("UA", "IRA", "CRA")] == [8, 12, 20]


def test_the_figure_has_a_row_for_each_prompt_and_a_column_for_each_model(built: Checkout) -> None:
    with Image.open(built.folder / "results/tiny/figure2.png") as picture:
        width, height = picture.size
        colours = len(picture.convert("RGB").getcolors(1 << 24) or [])
    assert width > 3 * 96 and height > 5 * 96
    assert colours > 500


@pytest.mark.parametrize(("metric", "chance"), [("UA", 1 / 7), ("IRA", 1 / 7), ("CRA", 1 / 4)])
def test_the_miniature_draws_its_world_far_better_than_chance(metric: str, chance: float, built: Checkout) -> None:
    """This is no claim about methods. If the base model could not draw its seven styles, no row would mean anything."""
    with (built.folder / "results/tiny/table1.cells.csv").open() as stream:
        cells = {(row["task"], row["row"], row["metric"]): row for row in csv.DictReader(stream)}
    cell = cells["Forget02", "original", metric]
    k, n = int(cell["k"]), int(cell["n"])
    recognised = n - k if metric == "UA" else k
    assert binomtest(recognised, n, chance, alternative="greater").pvalue < 1e-3


def test_every_manifest_has_a_matching_provenance_record(built: Checkout) -> None:
    manifests = list((built.folder / "runs").glob(f"*/*/{MANIFEST}"))
    assert len(manifests) > 30
    for path in manifests:
        record = json.loads(path.with_suffix(".provenance.json").read_text())
        manifest = read_manifest(path)
        assert record["specification"]["digest"] == manifest.digest
        assert record["device"] and record["host"] and record["wall_seconds"] >= 0
        assert record["threads"] == record["specification"]["threads"]
        assert path.parent.name.endswith(manifest.digest[:12])
        for name in manifest.files:
            manifest.file(name)


def test_no_unfinished_state_is_left(built: Checkout) -> None:
    left = [
        path for path in (built.folder / "runs").rglob("*") if path.name.startswith(".") or "checkpoint" in path.name
    ]
    assert left == []


# Repeated requests


def test_a_repeated_request_runs_nothing(built: Checkout) -> None:
    assert built.planned(*TINY) == {}


def test_a_fresh_clone_beside_the_old_results_runs_nothing(checkout: Checkout) -> None:
    assert not (checkout.folder / ".snakemake").exists()
    assert checkout.planned(*TINY) == {}


@pytest.mark.parametrize("order", ["forwards", "backwards"])
def test_touching_every_file_runs_nothing(order: str, workplace_or_clone: Checkout) -> None:
    files = sorted(path for path in workplace_or_clone.folder.rglob("*") if path.is_file())
    moment = time.time()
    for age, path in enumerate(files if order == "forwards" else reversed(files)):
        os.utime(path, (moment - age, moment - age))
    assert workplace_or_clone.planned(*TINY) == {}


def test_other_numbers_of_cores_or_shards_or_the_cluster_profile_run_nothing(
    workplace_or_slow_clone: Checkout,
) -> None:
    assert workplace_or_slow_clone.planned("--cores", "7", *TINY) == {}
    assert workplace_or_slow_clone.planned("--profile", "slurm", *TINY) == {}
    workplace_or_slow_clone.edit(
        "config/studies/tiny.yaml",
        "batches_per_shard: 1, checkpoint_seconds: 20.0",
        "batches_per_shard: 3, checkpoint_seconds: 7.0",
    )
    assert workplace_or_slow_clone.planned(*TINY) == {}


# Changes


@pytest.mark.long
def test_changing_cores_learning_rate_builds_cores_runs_and_changing_it_back_nothing(
    workplace_or_slow_clone: Checkout,
) -> None:
    old, new = "  core:\n    learning_rate: 1.0e-3", "  core:\n    learning_rate: 2.0e-3"
    table = workplace_or_slow_clone.folder / "results/tiny/table1.csv"
    before, products = table.read_text(), hashes_below(workplace_or_slow_clone.folder / "results")
    for expected in (CORES_RUNS, {"tabulate": 1, "draw": 1}):  # the second time, all runs exist
        workplace_or_slow_clone.edit("config/studies/tiny.yaml", old, new)
        assert workplace_or_slow_clone.planned(*TINY) == expected
        done = workplace_or_slow_clone.snakemake("--cores", "2", *TINY)
        assert done.returncode == 0, done.stdout[-4000:]
        assert workplace_or_slow_clone.planned(*TINY) == {}
        changed = table.read_text()
        unchanged_rows = [row for row in before.splitlines() if "CORE" not in row]
        assert [row for row in changed.splitlines() if "CORE" not in row] == unchanged_rows

        # after the change back, every run still exists, and only the products are rebuilt
        workplace_or_slow_clone.edit("config/studies/tiny.yaml", new, old)
        assert workplace_or_slow_clone.planned(*TINY) == {"tabulate": 1, "draw": 1}
        assert workplace_or_slow_clone.snakemake("--cores", "1", *TINY).returncode == 0
        assert hashes_below(workplace_or_slow_clone.folder / "results") == products
        assert workplace_or_slow_clone.planned(*TINY) == {}


def test_changing_it_back_before_anything_was_built_builds_nothing(workplace_or_slow_clone: Checkout) -> None:
    old, new = "  core:\n    learning_rate: 1.0e-3", "  core:\n    learning_rate: 2.0e-3"
    workplace_or_slow_clone.edit("config/studies/tiny.yaml", old, new)
    assert workplace_or_slow_clone.planned(*TINY) == CORES_RUNS
    workplace_or_slow_clone.edit("config/studies/tiny.yaml", new, old)
    assert workplace_or_slow_clone.planned(*TINY) == {}


def test_changing_a_docstring_a_comment_or_the_layout_builds_nothing(workplace_or_slow_clone: Checkout) -> None:
    workplace_or_slow_clone.edit(
        "corelib/unlearning/objective.py",
        '"""The pairs of one training step.\n',
        '"""Something else\n\n    altogether.\n',
    )
    workplace_or_slow_clone.edit(
        "corelib/unlearning/objective.py",
        "return base - eta * (own - base)  # equation 8",
        "return (base\n                    - eta * (own - base))",
    )
    assert workplace_or_slow_clone.planned(*TINY) == {}


def test_changing_the_loss_builds_everything_that_was_trained_with_it(workplace_or_slow_clone: Checkout) -> None:
    workplace_or_slow_clone.edit(
        "corelib/unlearning/objective.py",
        "return weight * distances.mean()",
        "return weight * distances.sum()",
    )
    planned = workplace_or_slow_clone.planned(*TINY)
    assert planned["unlearn"] == 4
    assert planned.keys() >= AFTER_UNLEARNING
    assert not planned.keys() & {"render_images", "train_pipeline", "train_classifier", "slice_images"}


def test_changing_how_a_table_is_laid_out_trains_nothing(workplace_or_slow_clone: Checkout) -> None:
    workplace_or_slow_clone.edit("corelib/reports/tables.py", 'header = ["Algorithm", *(f"', 'header = ["Method", *(f"')
    assert workplace_or_slow_clone.planned(*TINY) == {"tabulate": 1}


def test_a_changed_guidance_scale_samples_again_but_trains_nothing(workplace_or_slow_clone: Checkout) -> None:
    workplace_or_slow_clone.edit("config/studies/tiny.yaml", "guidance_scale: 3.0", "guidance_scale: 4.0")
    planned = workplace_or_slow_clone.planned(*TINY)
    assert planned.keys() == AFTER_UNLEARNING | {"tabulate", "draw"}


def test_a_table_that_was_edited_by_hand_is_rebuilt(workplace_or_clone: Checkout) -> None:
    table = workplace_or_clone.folder / "results/tiny/table1.csv"
    content = table.read_text()
    table.write_text(content.replace("CORE (ours)", "CORE (mine)"))
    assert workplace_or_clone.planned(*TINY) == {"tabulate": 1}
    assert workplace_or_clone.snakemake("--cores", "1", *TINY).returncode == 0
    assert table.read_text() == content


def test_a_wrong_table_is_rebuilt_even_if_it_is_dated_tomorrow(workplace_or_slow_clone: Checkout) -> None:
    """The clock was set back after the build. Snakemake refuses an output that is older than its inputs."""
    table = workplace_or_slow_clone.folder / "results/tiny/table1.csv"
    content = table.read_text()
    table.write_text(content.replace("CORE (ours)", "CORE (mine)"))
    tomorrow = time.time() + 86400
    for path in table.parent.iterdir():
        os.utime(path, (tomorrow, tomorrow))
    assert workplace_or_slow_clone.planned(*TINY) == {"tabulate": 1}
    done = workplace_or_slow_clone.snakemake("--cores", "1", *TINY)
    assert done.returncode == 0, done.stdout[-3000:]
    assert table.read_text() == content
    assert workplace_or_slow_clone.planned(*TINY) == {}


def test_a_study_of_two_lines_shares_every_run_it_does_not_change(workplace_or_slow_clone: Checkout) -> None:
    (workplace_or_slow_clone.folder / "config/studies/faster.yaml").write_text(
        "base: tiny\nmethods: {core: {learning_rate: 2e-3}}\n"
    )
    planned = workplace_or_slow_clone.planned("results/faster/table1.csv")
    assert planned == {rule: count for rule, count in CORES_RUNS.items() if rule != "draw"}


def test_a_world_that_was_trained_here_can_be_shipped_and_adopted(checkout: Checkout) -> None:
    (path,) = (checkout.folder / "runs/pipeline").glob("*/manifest.provenance.json")
    record = json.loads(path.read_text())
    attempt = {key: record[key] for key in ("began", "device", "node", "processor", "scheduler_job")}
    record["earlier_attempts"] = [{**attempt, "host": "somebodys-machine"}]
    path.write_text(json.dumps(record))
    done = checkout.python("-m", "corelib", "ship", "tiny")
    assert done.returncode == 1 and "is damaged; run" in done.stdout  # its seal does not match the edit
    path.write_text(json.dumps(sealed(record)))
    done = checkout.python("-m", "corelib", "ship", "tiny")
    assert done.returncode == 0 and done.stdout.strip() == "config/pretrained", done.stdout
    assert "somebodys-machine" not in (checkout.folder / "config/pretrained/world.json").read_text()
    (checkout.folder / "config/studies/taking.yaml").write_text("base: tiny\nworld: {pretrained: true}\n")
    planned = checkout.planned("results/taking/table1.csv")
    assert planned["adopt_pretrained"] == 1 and planned["unlearn"] == 4
    assert not {"train_autoencoder", "train_pipeline", "train_classifier", "render_images"} & planned.keys()
    done = checkout.snakemake("results/taking/table1.csv", "--cores", "1", "--until", "adopt_pretrained")
    assert done.returncode == 0, done.stdout
    (adopted,) = (checkout.folder / "runs/pretrained").glob("*/manifest.json")
    (trained,) = (checkout.folder / "runs/pipeline").glob("*/manifest.json")
    assert sha256_of_path(adopted.parent / "pipeline") == sha256_of_path(trained.parent / "pipeline")
    (checkout.folder / "config/pretrained/pipeline/unet/config.json").unlink()
    shutil.rmtree(adopted.parent)
    done = checkout.snakemake("results/taking/table1.csv", "--cores", "1")
    assert done.returncode != 0
    assert "config/pretrained/pipeline: its sha256 is" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ship", "mini"), "mini.yaml: it trains no world, expected world.pretrained: false."),
        (
            ("ship", "mini-from-scratch"),
            "manifest.json: missing, because the world of the study mini-from-scratch is not built; ask for "
            "results/mini-from-scratch/table1.csv first.",
        ),
        (
            ("products", "nope"),
            f"there is no such study, expected one of {', '.join(study_names(REPOSITORY / 'config'))}.",
        ),
    ],
)
def test_a_failing_command_prints_one_error(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = Checkout.at(tmp_path / "clone").python("-m", "corelib", *arguments)
    assert done.returncode == 1
    assert done.stdout.startswith("Error: ") and done.stdout.rstrip().endswith(message) and done.stdout.count("\n") == 1


@pytest.mark.parametrize(
    "study",
    [
        pytest.param(name, marks=() if name == "tiny" else pytest.mark.slow)
        for name in study_names(REPOSITORY / "config")
    ],
)
def test_every_table_of_every_study_is_planned(study: str, tmp_path: Path) -> None:
    clone = Checkout.at(tmp_path / "clone")
    products = clone.python("-m", "corelib", "products", study).stdout.split()
    for product in products:
        planned = clone.planned(product)
        rule = next(rule for name, rule in REPORTING.items() if Path(product).name.startswith(name))
        assert planned[rule] == 1


def test_a_queued_job_does_not_depend_on_edits_of_the_configuration(checkout: Checkout) -> None:
    runs = sorted((checkout.folder / "runs/unlearning").iterdir())
    (checkout.folder / "config/studies/tiny.yaml").write_text("this: [is, no, study")
    for run in runs:
        assert checkout.planned(f"runs/unlearning/{run.name}/{MANIFEST}") == {}


# The same bits


EVALUATION = ("samples", "predictions", "fid", "cells")


@pytest.mark.long
@pytest.mark.parametrize(
    "stages", [EVALUATION, pytest.param(("slices", "latents", "unlearning", *EVALUATION), marks=pytest.mark.slow)]
)
def test_the_same_study_built_again_gives_the_same_bits(stages: tuple[str, ...], checkout: Checkout) -> None:
    """Stages are built again, with one core and other shards, and all results are compared."""
    before = hashes_below(checkout.folder / "runs"), hashes_below(checkout.folder / "results")
    for stage in stages:
        shutil.rmtree(checkout.folder / "runs" / stage)
    shutil.rmtree(checkout.folder / "results")
    checkout.edit("config/studies/tiny.yaml", "batches_per_shard: 1", "batches_per_shard: 2")
    done = checkout.snakemake("--cores", "1", *TINY)
    assert done.returncode == 0, done.stdout[-4000:]
    after = hashes_below(checkout.folder / "runs"), hashes_below(checkout.folder / "results")
    assert after[1] == before[1]
    kept = {name: sha for name, sha in before[0].items() if "/shards/" not in name and "specification" not in name}
    assert {name: after[0].get(name) for name in kept} == kept


def test_a_job_whose_end_snakemake_missed_does_not_block_later_jobs(checkout: Checkout) -> None:
    """Its manifest exists, but Snakemake, which died before the job ended, has marked the manifest as incomplete."""
    for path in [checkout.folder / "results", *checkout.folder.glob("runs/cells"), *checkout.folder.glob("runs/fid")]:
        shutil.rmtree(path)
    marks = checkout.folder / ".snakemake/incomplete"
    marks.mkdir(parents=True)
    for manifest in checkout.folder.glob("runs/unlearning/core-*/manifest.json"):
        mark = base64.b64encode(str(manifest.relative_to(checkout.folder)).encode()).decode()
        (marks / mark).write_text("")
    done = checkout.snakemake("--cores", "2", *TINY)
    assert done.returncode == 0, done.stdout[-3000:]
    assert all((checkout.folder / target).exists() for target in TINY)
    assert "rule unlearn:" not in done.stdout


# Errors


def test_the_papers_study_is_planned_without_its_assets(tmp_path: Path) -> None:
    clone = Checkout.at(tmp_path)
    planned = clone.planned("results/table1.csv")
    assert planned["adopt_assets"] == 5
    assert planned["unlearn"] == 18
    assert clone.planned("--profile", "slurm", "results/table1.csv") == planned


def test_a_real_run_without_assets_stops_within_seconds_and_lists_the_missing_files(tmp_path: Path) -> None:
    clone = Checkout.at(tmp_path)
    began = time.monotonic()
    done = clone.snakemake("--cores", "2", "results/table1.csv")
    assert done.returncode != 0
    assert time.monotonic() - began < 30
    sentence = next(line for line in done.stdout.splitlines() if "Error:" in line and "assets" in line)
    for place in ("UnlearnCanvas", "UnlearnCanvas-ckpts/cls_model/style50.pth", "inception-2015-12-05.pt"):
        assert f"assets/{place} is missing;" in sentence
    assert sentence.count("`make assets` downloads missing assets that have a source") == 1
    assert "Traceback" not in done.stdout


def test_a_bad_study_stops_before_any_job_with_one_sentence(checkout: Checkout) -> None:
    checkout.edit("config/studies/tiny.yaml", "guidance_scale: 3.0", "guidance_scale: strong")
    done = checkout.snakemake("--cores", "1", *TINY)
    assert done.returncode != 0
    assert done.stdout.count("sampling.guidance_scale is 'strong', expected a number.") == 1
    assert "Traceback" not in done.stdout
    assert "rule " not in done.stdout


def test_an_unknown_table_is_refused_by_name(checkout: Checkout) -> None:
    done = checkout.snakemake("--dry-run", "results/tiny/table7.csv")
    assert done.returncode != 0
    assert "study 'tiny' has no such product, expected one of table1, charts1, figure2, report" in done.stdout


def test_an_unknown_study_is_refused_by_name(checkout: Checkout) -> None:
    done = checkout.snakemake("--dry-run", "results/huge/table1.csv")
    assert done.returncode != 0
    assert f"there is no such study, expected one of {', '.join(study_names(REPOSITORY / 'config'))}" in done.stdout


def test_code_that_changes_while_a_job_waits_is_noticed_by_the_job(checkout: Checkout) -> None:
    run = next((checkout.folder / "runs/unlearning").glob("core-forget01*"))
    (run / MANIFEST).unlink()
    checkout.edit(
        "corelib/unlearning/objective.py",
        "return weight * distances.mean()",
        "return weight * distances.sum()",
    )
    done = checkout.snakemake("--cores", "1", f"runs/unlearning/{run.name}/{MANIFEST}")
    assert done.returncode != 0
    assert "module corelib.unlearning.objective has changed since this run was planned" in done.stdout


def truncate(image: Path) -> None:
    image.write_bytes(image.read_bytes()[:300])


@pytest.mark.parametrize("damage", [truncate, Path.unlink])
def test_damaged_images_are_rendered_again(damage: Callable[[Path], None], workplace_or_slow_clone: Checkout) -> None:
    world = next((workplace_or_slow_clone.folder / "runs/images").iterdir())
    damage(world / "images/Cobalt_Stripes/Circles/2.jpg")
    for stage in ("slices", "latents", "unlearning", "samples", "predictions", "fid", "cells"):
        shutil.rmtree(workplace_or_slow_clone.folder / "runs" / stage)
    shutil.rmtree(workplace_or_slow_clone.folder / "results")
    planned = workplace_or_slow_clone.planned(*TINY)
    assert planned["render_images"] == 1
    assert "slice_images" in planned


@pytest.mark.parametrize(
    ("study", "sentence"),
    [
        ("tiny", "Write-protected output files for rule tabulate:"),  # Snakemake's own message, for existing products
        ("other", "results/other: not writable, expected a writable folder."),
    ],
)
def test_a_read_only_results_folder_is_named_before_anything_is_computed(
    study: str, sentence: str, checkout: Checkout
) -> None:
    (checkout.folder / "config/studies/other.yaml").write_text("base: tiny\n")
    checkout.edit("config/studies/tiny.yaml", "guidance_scale: 3.0", "guidance_scale: 4.0")
    results, target = checkout.folder / "results", f"results/{study}/table1.csv"
    before = hashes_below(results)
    if os.geteuid() == 0:  # root writes through permissions, but not to a read-only mount
        mounted = "mount --bind results results && mount -o remount,ro,bind results && exec "
        command = f"{mounted} {sys.executable} -m snakemake --cores 1 {target}"
        unshared = ["unshare", "--mount", "sh", "-c", command]
        done = subprocess.run(unshared, cwd=checkout.folder, capture_output=True, text=True, check=False)
        output = done.stdout + done.stderr
    else:
        folders = [results, results / "tiny", *(results / "tiny").iterdir()]
        for path in folders:
            path.chmod(path.stat().st_mode & ~0o222)
        output = checkout.snakemake("--cores", "1", target).stdout
        for path in folders:
            path.chmod(path.stat().st_mode | 0o200)
    assert sentence in output
    assert "Traceback" not in output
    assert "Finished jobid" not in output
    assert hashes_below(results) == before


@pytest.mark.parametrize("used", ["used before", "never used"])
def test_a_second_user_of_a_clone_gets_one_error(used: str, tmp_path: Path) -> None:
    clone = Checkout.at(tmp_path / "clone")
    if used == "used before":
        assert clone.planned(*TINY)
    else:
        shutil.rmtree(clone.folder / ".snakemake", ignore_errors=True)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *TINY]
    folders = [clone.folder, *(path for path in clone.folder.rglob("*") if path.is_dir() and not path.is_symlink())]
    if os.geteuid() == 0:  # root may write everywhere, unless it drops these capabilities
        for folder in folders:
            os.chown(folder, 65534, 65534)
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", *command]
    else:
        for folder in folders:
            folder.chmod(0o555)
    done = subprocess.run(command, cwd=clone.folder, capture_output=True, text=True, check=False)
    for folder in folders:
        folder.chmod(0o755)
    assert done.returncode != 0
    assert done.stderr.count("Error: ") == 1 and "Traceback" not in done.stderr, done.stderr
    assert ("not writable" in done.stderr) or ("a clone belongs to one user" in done.stderr)


# The repository


def test_snakemake_lint_finds_nothing(tmp_path: Path) -> None:
    done = Checkout.at(tmp_path).snakemake("--lint")
    assert done.returncode == 0, done.stdout


def test_the_repository_names_no_machine() -> None:
    repository = REPOSITORY
    if not (repository / ".git").exists():
        pytest.skip("not a checkout")
    words = "|".join(["/[w]ork/", "--(extra-)?[i]ndex-url", "--find-[l]inks", "[b]ash_jobs"])
    found = subprocess.run(["git", "grep", "-nIE", words], cwd=repository, capture_output=True, text=True, check=False)
    assert found.stdout == ""
