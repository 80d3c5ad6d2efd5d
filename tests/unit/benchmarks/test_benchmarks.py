"""The benchmarks run, and their reports have all parts."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from support.checkout import REPOSITORY


@pytest.fixture(scope="module")
def measurement() -> Iterator[ModuleType]:
    """The module `benchmarks.measurement`."""
    sys.path.insert(0, str(REPOSITORY))
    import benchmarks.measurement as module

    yield module
    sys.path.remove(str(REPOSITORY))


def run(script: str, *arguments: str, folder: Path) -> str:
    command = [sys.executable, str(REPOSITORY / script), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_both_sides_are_measured_in_turn_and_per_unit(measurement: ModuleType) -> None:
    order: list[str] = []

    def act(name: str, seconds: float) -> object:
        order.append(name)
        return measurement.Cost(cpu=seconds, wall=2 * seconds)

    ours = measurement.Side(lambda: act("ours", 1.0), amount=4)
    theirs = measurement.Side(lambda: act("theirs", 6.0), amount=2)
    result = measurement.measure(measurement.Comparison("work", "unit", ours, theirs), pairs=3)
    assert order == ["ours", "theirs", *("ours", "theirs"), *("theirs", "ours"), *("ours", "theirs")]
    assert result.seconds("ours", "cpu") == 0.25 and result.seconds("reference", "wall") == 6.0
    assert result.ratios("cpu") == [12.0] * 3


def test_the_cost_of_a_process_includes_those_that_outlive_it(measurement: ModuleType, tmp_path: Path) -> None:
    busy = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    starts = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {busy!r}])"
    cost = measurement.run_process([sys.executable, "-c", starts], tmp_path)
    assert cost.cpu >= 0.5 and cost.peak_mib > 1


def test_a_process_that_fails_ends_the_benchmark_with_its_message(measurement: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such stage"):
        measurement.run_process([sys.executable, "-c", "import sys; sys.exit('no such stage')"], tmp_path)


@pytest.mark.slow
def test_the_report_has_a_line_for_every_kind_of_work(tmp_path: Path) -> None:
    run("benchmarks", "--quick", "--report", "report", "--remark", "a test was running", folder=tmp_path)
    with (tmp_path / "report/benchmark.csv").open() as file:
        rows = {row["work"]: row for row in csv.DictReader(file)}
    assert list(rows) == [
        *("one run end to end", "training", "sampling", "classification"),
        *("FID of a model", "features of the real images", "Frechet distance alone"),
    ]
    assert all(float(row["ratio_cpu"]) > 0 and float(row["ours_wall_s"]) > 0 for row in rows.values())
    text = (tmp_path / "report/benchmark.md").read_text()
    assert "peak memory in MiB" in text and "share of the device's peak" in text and "a test was running" in text
    assert "the numbers mean nothing" in text
    assert (tmp_path / "report/benchmark.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_checks_of_a_gpu_pass_with_small_networks(tmp_path: Path) -> None:
    run("benchmarks/gpu.py", "--smoke", "--report", "gpu.md", folder=tmp_path)
    text = (tmp_path / "gpu.md").read_text()
    assert text.count("\n## ") == 9 and "**" not in text
    assert text.count("equal bits") == 3


@pytest.mark.slow
def test_the_start_of_snakemake_is_measured_for_both_snakefiles(tmp_path: Path) -> None:
    run("benchmarks/dag.py", "--jobs", "12", "--report", ".", folder=tmp_path)
    with (tmp_path / "dag.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["snakefile"], row["run"]) for row in rows] == [
        (snakefile, run) for snakefile in ("this workflow", "trivial") for run in ("dry run", "real run")
    ]
    assert all(float(row["cpu_seconds"]) > 0 for row in rows)
