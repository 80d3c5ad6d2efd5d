"""A table that is wrong is never called up to date, in the folder in which it was built and in a clone.

Each fault is made twice in a row: Snakemake remembers what it has put right.
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
    """The products of the tiny study; who made them when is not compared."""
    folder = checkout.folder / "results/tiny"
    return {path.name: path.read_bytes() for path in folder.iterdir() if "provenance" not in path.name}


def ask(checkout: Checkout, *targets: str) -> str:
    """Ask for products of the tiny study; what is said."""
    done = checkout.snakemake("--cores", "2", *(targets or TINY))
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def verified(checkout: Checkout) -> str:
    return checkout.python("-m", "corelib", "verify").stdout


# Products


def edited(folder: Path) -> None:
    table = folder / TABLE
    table.write_text(table.read_text().replace("100.00", "99.99"))


def edited_and_dated_back(folder: Path) -> None:
    old = (folder / TABLE).stat().st_mtime
    edited(folder)
    os.utime(folder / TABLE, (old, old))


def truncated(folder: Path) -> None:
    (folder / TABLE).write_text("")


def without_markdown(folder: Path) -> None:
    (folder / TABLE).with_suffix(".md").unlink()


def without_manifest(folder: Path) -> None:
    (folder / TABLE).with_suffix(".json").unlink()


def with_a_flipped_bit_in_the_manifest(folder: Path) -> None:
    path = (folder / TABLE).with_suffix(".json")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def without_cells(folder: Path) -> None:
    (folder / "results/tiny/table1.cells.csv").unlink()


def overwritten(folder: Path) -> None:
    (folder / FIGURE).write_bytes((folder / FIGURE).read_bytes()[:-100])


PRODUCT_FAULTS = (
    edited,
    edited_and_dated_back,
    truncated,
    without_markdown,
    without_manifest,
    with_a_flipped_bit_in_the_manifest,
    without_cells,
    overwritten,
)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, marks=() if fault in (edited, truncated, overwritten) else pytest.mark.slow)
        for fault in PRODUCT_FAULTS
    ],
)
def test_a_product_that_is_not_what_it_should_be_is_made_again(
    fault: Callable[[Path], None], workplace_or_slow_clone: Checkout
) -> None:
    before = contents(workplace_or_slow_clone)
    for _ in range(2):
        fault(workplace_or_slow_clone.folder)
        assert contents(workplace_or_slow_clone) != before
        ask(workplace_or_slow_clone)
        assert contents(workplace_or_slow_clone) == before
        assert workplace_or_slow_clone.planned(*TINY) == {}


def test_results_of_another_configuration_that_were_copied_over_do_not_stay(workplace_or_slow_clone: Checkout) -> None:
    before = contents(workplace_or_slow_clone)
    other = workplace_or_slow_clone.folder / "config/studies/other.yaml"
    other.write_text("base: tiny\ntables: {table1: {rows: [original, core]}}\nfigures: {figure2: {columns: [core]}}\n")
    ask(workplace_or_slow_clone, "results/other/table1.csv", "results/other/figure2.png")
    for _ in range(2):
        for path in (workplace_or_slow_clone.folder / "results/other").iterdir():
            shutil.copy2(path, workplace_or_slow_clone.folder / "results/tiny")
        assert contents(workplace_or_slow_clone) != before
        ask(workplace_or_slow_clone)
        assert contents(workplace_or_slow_clone) == before
        assert workplace_or_slow_clone.planned(*TINY) == {}


def test_the_documented_recovery_makes_what_was_removed_anew(workplace_or_slow_clone: Checkout) -> None:
    before = contents(workplace_or_slow_clone)
    for _ in range(2):
        removed = workplace_or_slow_clone.python("-m", "corelib", "clean", "cells/core", "--delete")
        assert removed.returncode == 0, removed.stdout
        assert "rule count_cells:" in ask(workplace_or_slow_clone)
        assert contents(workplace_or_slow_clone) == before
        assert len(list((workplace_or_slow_clone.folder / "runs/cells").glob("core-*/manifest.json"))) == 2
        assert workplace_or_slow_clone.planned(*TINY) == {}


# Runs behind them


def cell_of_core(folder: Path) -> Path:
    return next((folder / "runs/cells").glob("core-forget01-*"))


def counts_are_edited(folder: Path) -> None:
    path = cell_of_core(folder) / "cells.json"
    path.write_text(path.read_text().replace('"n": 6', '"n": 7'))


def a_manifest_is_damaged(folder: Path) -> None:
    path = cell_of_core(folder) / "manifest.json"
    path.write_text(path.read_text().replace('"k": ', '"k": 1'))


def a_manifest_is_that_of_another_run(folder: Path) -> None:
    other = next((folder / "runs/cells").glob("esd-forget01-*"))
    shutil.copy(other / "manifest.json", cell_of_core(folder) / "manifest.json")


def predictions_are_truncated(folder: Path) -> None:
    shutil.rmtree(cell_of_core(folder))
    for path in (folder / "runs/predictions").glob("core-forget01-*/*.parquet"):
        path.write_bytes(path.read_bytes()[:50])


def an_image_is_damaged(folder: Path) -> None:
    shutil.rmtree(cell_of_core(folder))
    for path in (folder / "runs/predictions").glob("core-forget01-*"):
        shutil.rmtree(path)
    image = next(iter(sorted((folder / "runs/samples").glob("core-forget01-*/images/*.jpg"))))
    image.write_bytes(image.read_bytes()[:-20])


@pytest.mark.parametrize(
    "fault",
    [
        counts_are_edited,
        a_manifest_is_damaged,
        a_manifest_is_that_of_another_run,
        pytest.param(predictions_are_truncated, marks=pytest.mark.slow),
        pytest.param(an_image_is_damaged, marks=pytest.mark.slow),
    ],
)
def test_damage_behind_a_table_that_has_to_be_made_is_mended_before_it_is_read(
    fault: Callable[[Path], None], workplace_or_slow_clone: Checkout
) -> None:
    before = contents(workplace_or_slow_clone)
    for _ in range(2):
        fault(workplace_or_slow_clone.folder)
        truncated(workplace_or_slow_clone.folder)
        ask(workplace_or_slow_clone)
        assert contents(workplace_or_slow_clone) == before
        assert "0 faults" in verified(workplace_or_slow_clone)
        assert workplace_or_slow_clone.planned(*TINY) == {}


# Other builds of one model


def trained_elsewhere(checkout: Checkout, study: str) -> str:
    """Ask for a study's table where the CPU has other kernels: a stand-in for another device."""
    targets = ["-m", "snakemake", "--cores", "2", f"results/{study}/table1.csv"]
    done = checkout.python(*targets, timeout=600, ATEN_CPU_CAPABILITY="default")
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def without_model_and_all_that_was_made_of_it(checkout: Checkout) -> None:
    """As somebody removes it who needs the room; the table stays."""
    for path in (checkout.folder / "runs").glob("*/core-forget01-*"):
        if path.parent.name != "slices":
            shutil.rmtree(path)


def without_model_alone(checkout: Checkout) -> None:
    for path in (checkout.folder / "runs/unlearning").glob("core-forget01-*"):
        shutil.rmtree(path)


@pytest.mark.parametrize(
    "removed", [without_model_and_all_that_was_made_of_it, pytest.param(without_model_alone, marks=pytest.mark.slow)]
)
def test_a_model_that_is_trained_again_elsewhere_leaves_no_table_with_numbers_of_the_old_one(
    removed: Callable[[Checkout], None], workplace_or_slow_clone: Checkout
) -> None:
    """Two studies show the same run; they have to say the same of it, or the one that does not is not up to date."""
    more = (
        "base: tiny\ntasks: {Forget01: {evaluation: {seeds: [188, 288, 388]}}}\ntables: {table1: {tasks: [Forget01]}}\n"
    )
    (workplace_or_slow_clone.folder / "config/studies/more.yaml").write_text(more)
    removed(workplace_or_slow_clone)
    trained_elsewhere(workplace_or_slow_clone, "more")
    assert workplace_or_slow_clone.planned(*TINY).keys() >= {"tabulate"}, (
        "its numbers are those of a model that is gone"
    )
    ask(workplace_or_slow_clone)
    assert "0 faults" in verified(workplace_or_slow_clone)
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
def test_of_two_studies_asked_for_at_once_both_are_of_the_model_that_is_trained_for_them(workplace: Checkout) -> None:
    (workplace.folder / "config/studies/more.yaml").write_text(
        "base: tiny\ntasks: {Forget01: {evaluation: {seeds: [188]}}}\ntables: {table1: {tasks: [Forget01]}}\n"
    )
    without_model_alone(workplace)
    targets = ["-m", "snakemake", "--cores", "2", TINY[0], "results/more/table1.csv"]
    done = workplace.python(*targets, timeout=600, ATEN_CPU_CAPABILITY="default")
    assert done.returncode == 0, done.stdout[-5000:]
    tiny, more = (read_json(workplace.folder / f"results/{study}/table1.json")["trained"] for study in ("tiny", "more"))
    assert {model: tiny[model] for model in more} == more
    assert "another build" not in verified(workplace)
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


@pytest.mark.parametrize("waits", [True, False], ids=["after its job has ended", "while its job still runs"])
def test_a_job_that_snakemake_left_behind_does_not_put_another_table_in_place(waits: bool, workplace: Checkout) -> None:
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
        ask(workplace)
        wait_until(lambda: not jobs_of(workplace, "tabulate.py"))
        assert contents(workplace) == before
        assert workplace.planned(*TINY) == {}


def test_a_dry_run_beside_a_working_snakemake_leaves_its_products_alone(workplace: Checkout) -> None:
    truncated(workplace.folder)
    process = start(workplace, TINY[0])
    wait_until(lambda: (workplace.folder / ".snakemake/corelib/controller.lease").exists())
    study = workplace.folder / "config/studies/tiny.yaml"
    original = study.read_text()
    study.write_text(original.replace("rows: [original, esd, core]", "rows: [original, esd]"))
    assert workplace.planned(TINY[0]) == {"tabulate": 1}
    study.write_text(original)
    assert process.wait(120) == 0
    assert workplace.planned(TINY[0]) == {}


# What is kept of it


def test_requests_do_not_pile_up_and_the_wanted_digest_is_that_of_the_study(workplace: Checkout) -> None:
    for _ in range(3):
        truncated(workplace.folder)
        ask(workplace)
    wanted = (workplace.folder / WANTED_FOLDER / "results/tiny/table1.json").read_text()
    assert wanted == json.loads((workplace.folder / "results/tiny/table1.json").read_text())["digest"]


def test_a_manifest_whose_seal_was_made_anew_after_an_edit_is_that_of_no_run(workplace_or_slow_clone: Checkout) -> None:
    """Somebody who edits a number and mends all hashes has forged a result; a foreign digest is seen all the same."""
    path = (workplace_or_slow_clone.folder / TABLE).with_suffix(".json")
    before = contents(workplace_or_slow_clone)
    content = read_json(path)
    write_json(path, sealed({**content, "digest": "0" * 64}))
    ask(workplace_or_slow_clone)
    assert contents(workplace_or_slow_clone) == before
