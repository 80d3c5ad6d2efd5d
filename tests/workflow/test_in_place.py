"""A wrong table never counts as up to date, in the folder in which it was built and in a clone.

Each fault occurs twice in a row, because Snakemake records what it has rebuilt.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.checkout import TINY, Checkout

from corelib.files.json_files import read_json, write_json
from corelib.files.sealed_json import sealed
from corelib.runs.requests import WANTED_FOLDER

TABLE, FIGURE = Path(TINY[0]), Path(TINY[1])


def contents(checkout: Checkout) -> dict[str, bytes]:
    """The products of the tiny study, except provenance records."""
    folder = checkout.folder / "results/tiny"
    return {path.name: path.read_bytes() for path in folder.iterdir() if "provenance" not in path.name}


def request(checkout: Checkout, *targets: str) -> str:
    """Request products of the tiny study, and return the output."""
    done = checkout.snakemake("--cores", "2", *(targets or TINY))
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def verify(checkout: Checkout) -> str:
    return checkout.python("-m", "corelib", "verify").stdout


# Products


def edit_table(folder: Path) -> None:
    table = folder / TABLE
    table.write_text(table.read_text().replace("100.00", "99.99"))


def edit_table_and_keep_its_date(folder: Path) -> None:
    old = (folder / TABLE).stat().st_mtime
    edit_table(folder)
    os.utime(folder / TABLE, (old, old))


def empty_table(folder: Path) -> None:
    (folder / TABLE).write_text("")


def delete_markdown(folder: Path) -> None:
    (folder / TABLE).with_suffix(".md").unlink()


def delete_manifest(folder: Path) -> None:
    (folder / TABLE).with_suffix(".json").unlink()


def flip_a_bit_in_manifest(folder: Path) -> None:
    path = (folder / TABLE).with_suffix(".json")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def delete_cells(folder: Path) -> None:
    (folder / "results/tiny/table1.cells.csv").unlink()


def truncate_figure(folder: Path) -> None:
    (folder / FIGURE).write_bytes((folder / FIGURE).read_bytes()[:-100])


PRODUCT_FAULTS = (
    edit_table,
    edit_table_and_keep_its_date,
    empty_table,
    delete_markdown,
    delete_manifest,
    flip_a_bit_in_manifest,
    delete_cells,
    truncate_figure,
)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, marks=() if fault in (edit_table, truncate_figure) else pytest.mark.slow)
        for fault in PRODUCT_FAULTS
    ],
)
def test_a_wrong_product_is_rebuilt(fault: Callable[[Path], None], workplace_or_slow_clone: Checkout) -> None:
    before = contents(workplace_or_slow_clone)
    for _ in range(2):
        fault(workplace_or_slow_clone.folder)
        assert contents(workplace_or_slow_clone) != before
        request(workplace_or_slow_clone)
        assert contents(workplace_or_slow_clone) == before
        assert workplace_or_slow_clone.planned(*TINY) == {}


def test_a_missing_or_damaged_specification_of_a_right_product_is_restored(workplace_or_slow_clone: Checkout) -> None:
    checkout = workplace_or_slow_clone
    paths = sorted(checkout.folder.glob("runs/*/tiny-*/specification.json"))
    assert len(paths) >= len(TINY)
    expected = contents(checkout)
    for _ in range(2):
        for path in paths[::2]:
            path.unlink()
        for path in paths[1::2]:
            path.write_text(path.read_text()[:-20])
        assert "specification.json" in verify(checkout)
        request(checkout, "--dry-run", *TINY)
        assert not any(path.exists() for path in paths[::2])
        assert "Nothing to be done" in request(checkout)
        assert ", 0 faults" in verify(checkout)
    assert contents(checkout) == expected


def test_products_copied_from_another_configuration_are_rebuilt(workplace_or_slow_clone: Checkout) -> None:
    before = contents(workplace_or_slow_clone)
    other = workplace_or_slow_clone.folder / "config/studies/other.yaml"
    other.write_text("base: tiny\ntables: {table1: {rows: [original, core]}}\nfigures: {figure2: {columns: [core]}}\n")
    request(workplace_or_slow_clone, "results/other/table1.csv", "results/other/figure2.png")
    for _ in range(2):
        for path in (workplace_or_slow_clone.folder / "results/other").iterdir():
            shutil.copy2(path, workplace_or_slow_clone.folder / "results/tiny")
        assert contents(workplace_or_slow_clone) != before
        request(workplace_or_slow_clone)
        assert contents(workplace_or_slow_clone) == before
        assert workplace_or_slow_clone.planned(*TINY) == {}


def test_the_documented_recovery_rebuilds_removed_runs(workplace_or_slow_clone: Checkout) -> None:
    before = contents(workplace_or_slow_clone)
    for _ in range(2):
        removed = workplace_or_slow_clone.python("-m", "corelib", "clean", "cells/core", "--delete")
        assert removed.returncode == 0, removed.stdout
        assert "rule count_cells:" in request(workplace_or_slow_clone)
        assert contents(workplace_or_slow_clone) == before
        assert len(list((workplace_or_slow_clone.folder / "runs/cells").glob("core-*/manifest.json"))) == 2
        assert workplace_or_slow_clone.planned(*TINY) == {}


# Runs from which products are made


def cell_of_core(folder: Path) -> Path:
    return next((folder / "runs/cells").glob("core-forget01-*"))


def edit_counts(folder: Path) -> None:
    path = cell_of_core(folder) / "cells.json"
    path.write_text(path.read_text().replace('"n": 6', '"n": 7'))


def edit_manifest(folder: Path) -> None:
    path = cell_of_core(folder) / "manifest.json"
    path.write_text(path.read_text().replace('"k": ', '"k": 1'))


def replace_manifest_by_that_of_another_run(folder: Path) -> None:
    other = next((folder / "runs/cells").glob("esd-forget01-*"))
    shutil.copy(other / "manifest.json", cell_of_core(folder) / "manifest.json")


def truncate_predictions(folder: Path) -> None:
    shutil.rmtree(cell_of_core(folder))
    for path in (folder / "runs/predictions").glob("core-forget01-*/*.parquet"):
        path.write_bytes(path.read_bytes()[:50])


def truncate_image(folder: Path) -> None:
    shutil.rmtree(cell_of_core(folder))
    for path in (folder / "runs/predictions").glob("core-forget01-*"):
        shutil.rmtree(path)
    image = next(iter(sorted((folder / "runs/samples").glob("core-forget01-*/images/*.jpg"))))
    image.write_bytes(image.read_bytes()[:-20])


@pytest.mark.parametrize(
    "fault",
    [
        edit_counts,
        pytest.param(edit_manifest, marks=pytest.mark.slow),
        pytest.param(replace_manifest_by_that_of_another_run, marks=pytest.mark.slow),
        pytest.param(truncate_predictions, marks=pytest.mark.slow),
        pytest.param(truncate_image, marks=pytest.mark.slow),
    ],
)
def test_damaged_inputs_of_a_missing_table_are_rebuilt_before_they_are_read(
    fault: Callable[[Path], None], workplace_or_slow_clone: Checkout
) -> None:
    before = contents(workplace_or_slow_clone)
    for _ in range(2):
        fault(workplace_or_slow_clone.folder)
        empty_table(workplace_or_slow_clone.folder)
        request(workplace_or_slow_clone)
        assert contents(workplace_or_slow_clone) == before
        assert "0 faults" in verify(workplace_or_slow_clone)
        assert workplace_or_slow_clone.planned(*TINY) == {}


# Other builds of one model


def build_elsewhere(checkout: Checkout, study: str) -> str:
    """Request a study's table with other kernels of the CPU, which simulate another device."""
    targets = ["-m", "snakemake", "--cores", "2", f"results/{study}/table1.csv"]
    done = checkout.python(*targets, timeout=600, ATEN_CPU_CAPABILITY="default")
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def delete_model_and_its_results(checkout: Checkout) -> None:
    """Delete runs as a user who needs disk space does; the table is kept."""
    for path in (checkout.folder / "runs").glob("*/core-forget01-*"):
        if path.parent.name != "slices":
            shutil.rmtree(path)


def delete_model(checkout: Checkout) -> None:
    for path in (checkout.folder / "runs/unlearning").glob("core-forget01-*"):
        shutil.rmtree(path)


@pytest.mark.parametrize("delete", [delete_model_and_its_results, pytest.param(delete_model, marks=pytest.mark.slow)])
def test_no_table_keeps_numbers_of_the_old_model_after_it_is_retrained_elsewhere(
    delete: Callable[[Checkout], None], workplace_or_slow_clone: Checkout
) -> None:
    """Two studies show the same run. Both must show the same build of it; otherwise one of them is out of date."""
    more = (
        "base: tiny\ntasks: {Forget01: {evaluation: {seeds: [188, 288, 388]}}}\ntables: {table1: {tasks: [Forget01]}}\n"
    )
    (workplace_or_slow_clone.folder / "config/studies/more.yaml").write_text(more)
    delete(workplace_or_slow_clone)
    build_elsewhere(workplace_or_slow_clone, "more")
    assert workplace_or_slow_clone.planned(*TINY).keys() >= {"tabulate"}, "its numbers are those of a deleted model"
    request(workplace_or_slow_clone)
    assert "0 faults" in verify(workplace_or_slow_clone)
    seals = {
        model: seal
        for study in ("tiny", "more")
        for model, seal in read_json(workplace_or_slow_clone.folder / f"results/{study}/table1.json")["trained"].items()
    }
    for study in ("tiny", "more"):
        assert (
            read_json(workplace_or_slow_clone.folder / f"results/{study}/table1.json")["trained"].items()
            <= seals.items()
        )
    assert workplace_or_slow_clone.planned(*TINY) == {}


@pytest.mark.slow
def test_two_studies_requested_together_use_the_same_newly_trained_model(workplace: Checkout) -> None:
    (workplace.folder / "config/studies/more.yaml").write_text(
        "base: tiny\ntasks: {Forget01: {evaluation: {seeds: [188]}}}\ntables: {table1: {tasks: [Forget01]}}\n"
    )
    delete_model(workplace)
    targets = ["-m", "snakemake", "--cores", "2", TINY[0], "results/more/table1.csv"]
    done = workplace.python(*targets, timeout=600, ATEN_CPU_CAPABILITY="default")
    assert done.returncode == 0, done.stdout[-5000:]
    tiny, more = (read_json(workplace.folder / f"results/{study}/table1.json")["trained"] for study in ("tiny", "more"))
    assert {model: tiny[model] for model in more} == more
    assert "another build" not in verify(workplace)
    assert workplace.planned(TINY[0], "results/more/table1.csv") == {}


# Jobs that an earlier Snakemake has left behind


def jobs_of(checkout: Checkout, script: str) -> list[int]:
    """The processes that execute a script of this checkout."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode()
            here = (process / "cwd").resolve() == checkout.folder.resolve()
        except OSError:
            continue
        if here and script in command and "snakemake\0" not in command:
            found.append(int(process.name))
    return found


def start(checkout: Checkout, *targets: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *targets]
    return subprocess.Popen(command, cwd=checkout.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_until(condition: Callable[[], object]) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 120
        time.sleep(0.02)


@pytest.mark.parametrize(
    "waits",
    [
        pytest.param(True, id="after its job has ended", marks=pytest.mark.slow),
        pytest.param(False, id="while its job still runs"),
    ],
)
def test_a_job_left_behind_by_snakemake_does_not_replace_the_table(waits: bool, workplace: Checkout) -> None:
    before = contents(workplace)
    study = workplace.folder / "config/studies/tiny.yaml"
    original = study.read_text()
    for _ in range(2):
        study.write_text(original.replace("rows: [original, esd, core]", "rows: [original, esd]"))
        process = start(workplace, TINY[0])
        wait_until(lambda: jobs_of(workplace, "tabulate.py"))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if waits:
            wait_until(lambda: not jobs_of(workplace, "tabulate.py"))
        study.write_text(original)
        request(workplace)
        wait_until(lambda: not jobs_of(workplace, "tabulate.py"))
        assert contents(workplace) == before
        assert workplace.planned(*TINY) == {}


def test_a_dry_run_does_not_disturb_a_running_snakemake(workplace: Checkout) -> None:
    empty_table(workplace.folder)
    process = start(workplace, TINY[0])
    wait_until(lambda: (workplace.folder / ".snakemake/corelib/controller.lease").exists())
    study = workplace.folder / "config/studies/tiny.yaml"
    original = study.read_text()
    study.write_text(original.replace("rows: [original, esd, core]", "rows: [original, esd]"))
    assert workplace.planned(TINY[0]) == {"tabulate": 1}
    study.write_text(original)
    assert process.wait(120) == 0
    assert workplace.planned(TINY[0]) == {}


# Records of requests


def test_after_several_requests_the_wanted_digest_is_that_of_the_study(workplace: Checkout) -> None:
    for _ in range(3):
        empty_table(workplace.folder)
        request(workplace)
    wanted = (workplace.folder / WANTED_FOLDER / "results/tiny/table1.json").read_text()
    assert wanted == json.loads((workplace.folder / "results/tiny/table1.json").read_text())["digest"]


def test_a_manifest_with_a_valid_seal_and_a_foreign_digest_is_replaced(workplace_or_slow_clone: Checkout) -> None:
    """Somebody who edits a number and all hashes can forge a result, but a foreign digest is still noticed."""
    path = (workplace_or_slow_clone.folder / TABLE).with_suffix(".json")
    before = contents(workplace_or_slow_clone)
    content = read_json(path)
    write_json(path, sealed({**content, "digest": "0" * 64}))
    request(workplace_or_slow_clone)
    assert contents(workplace_or_slow_clone) == before
