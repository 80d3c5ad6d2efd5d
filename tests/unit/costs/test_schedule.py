"""The schedule of jobs on several GPUs, and the priorities that make Snakemake follow it."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.checkout import REPOSITORY, Checkout

from corelib.commands.plan import wall_times
from corelib.costs.device_time import GPUS
from corelib.costs.forecast import forecast_of
from corelib.costs.schedule import Job, chain_lengths, chain_lengths_of_runs, jobs_of, simulate
from corelib.costs.workload import FLOP_COSTS, Costs
from corelib.study.loading import load_plan

CONFIGURATION = REPOSITORY / "config"
SECONDS = Costs(**{unit: flop / (GPUS[0].peak * GPUS[0].share) for unit, flop in vars(FLOP_COSTS).items()})


def independent(*durations: float) -> dict[str, Job]:
    return {f"job {number}": Job(duration, True, ()) for number, duration in enumerate(durations)}


def test_jobs_in_a_chain_take_the_sum_of_their_times_on_any_number_of_gpus() -> None:
    jobs = {"a": Job(3.0, True, ()), "b": Job(2.0, False, ("a",)), "c": Job(1.0, True, ("b", "made before"))}
    for gpus in (1, 2, 9):
        found = simulate(jobs, gpus)
        assert found.seconds == found.chain_seconds == 6.0
        assert found.chain == ["a", "b", "c"]


def test_jobs_without_a_gpu_wait_for_none() -> None:
    jobs = {"on a gpu": Job(5.0, True, ()), "elsewhere": Job(4.0, False, ()), "too": Job(4.0, False, ())}
    assert simulate(jobs, 1).seconds == 5.0


def test_long_jobs_start_first() -> None:
    """In another order, the long job would begin last and end at 9."""
    assert simulate(independent(1.0, 1.0, 2.0, 6.0), 2).seconds == 6.0


def test_a_short_job_before_a_long_chain_starts_before_a_longer_job() -> None:
    jobs = {**independent(4.0, 4.0), "first": Job(1.0, True, ()), "then": Job(6.0, True, ("first",))}
    assert simulate(jobs, 2).seconds == 8.0


@pytest.mark.parametrize("gpus", [1, 2, 3, 5])
def test_the_wall_time_is_between_the_bounds_of_list_scheduling(gpus: int) -> None:
    """Graham 1969: at most 2 - 1/m times the optimum, which is at least the work per GPU and the longest chain."""
    jobs = independent(*(1.0 + number % 7 for number in range(23)))
    jobs |= {f"after {name}": Job(2.0, True, (name,)) for name in list(jobs)[::3]}
    found, work = simulate(jobs, gpus), sum(job.seconds for job in jobs.values())
    lower = max(work / gpus, found.chain_seconds)
    assert lower <= found.seconds <= work / gpus + (1 - 1 / gpus) * found.chain_seconds + 1e-9
    assert found.busy == pytest.approx(work / (gpus * found.seconds))


def test_the_length_of_a_chain_counts_the_longest_of_its_branches() -> None:
    lengths = chain_lengths({"a": 1.0, "b": 2.0, "c": 5.0}, {"a": [], "b": ["a"], "c": ["a", "elsewhere"]})
    assert lengths == {"a": 6.0, "b": 2.0, "c": 5.0}


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory in which nothing is built."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("empty_folder")
def test_the_jobs_of_the_paper_are_those_of_its_forecast() -> None:
    found, _ = forecast_of(["all"], CONFIGURATION)
    jobs = jobs_of(found, SECONDS, start=0.0)
    assert len(jobs) == found.jobs.total()
    assert sum(job.seconds for job in jobs.values()) == pytest.approx(SECONDS.of(found.work))
    chain, _ = found.longest_chain(SECONDS)
    assert simulate(jobs, 1).chain_seconds == pytest.approx(chain)
    one, many = simulate(jobs, 1), simulate(jobs, 1000)
    assert one.seconds == pytest.approx(SECONDS.of(found.work), rel=1e-3), "one GPU hardly ever waits"
    assert many.seconds == pytest.approx(chain)


@pytest.mark.usefixtures("empty_folder")
def test_more_gpus_take_no_longer() -> None:
    found, _ = forecast_of(["all"], CONFIGURATION)
    jobs = jobs_of(found, SECONDS, start=60.0)
    times = [simulate(jobs, gpus).seconds for gpus in (1, 2, 4, 8, 16, 32, 64)]
    assert all(later <= earlier for earlier, later in itertools.pairwise(times))


@pytest.mark.usefixtures("empty_folder")
def test_the_text_says_that_times_are_simulated_and_rates_assumed() -> None:
    found, _ = forecast_of(["results/table1.csv"], CONFIGURATION)
    text = wall_times(found, [1, 64], 60.0, {"A100 at 38.5%": SECONDS})
    assert "1 GPU" in text and "64 GPUs" in text and "longest chain, A100 at 38.5%: assets/" in text
    assert "simulated, not measured" in text and "All rates are assumptions" in text and "60 s more" in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--gpus", "0"], "'0', expected numbers from 1 to 100000"),
        (["--gpus", "8,x"], "'8,x', expected numbers from 1"),
        (["--gpus", "8", "--start", "-1"], "'-1', expected a number of seconds"),
        (["--gpus", "8", "results/mini/table1.csv"], "--gpus 8: the costs of the miniature are known for CPU cores"),
    ],
)
def test_a_wrong_option_is_reported(arguments: list[str], expected: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "corelib", "plan", *arguments]
    environment = {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and expected in done.stderr


# Priorities


@pytest.mark.usefixtures("empty_folder")
def test_the_training_with_the_most_steps_has_the_highest_priority() -> None:
    runs = load_plan("paper", CONFIGURATION).table("table1").with_all_inputs()
    lengths = chain_lengths_of_runs(runs, "unlearn_canvas")
    trainings = sorted((run for run in runs.values() if run.stage == "unlearning"), key=lambda run: lengths[run.name])
    assert trainings[-1].slug.startswith("core-forget25")
    assert trainings[0].slug.startswith("ediff-forget01"), "75 steps, and no teacher"
    for run in runs.values():
        for needed in (*run.inputs.values(), *run.after.values()):
            assert lengths[needed.name] >= lengths[run.name]


def test_snakemake_knows_the_priorities(tmp_path: Path) -> None:
    done = Checkout.at(tmp_path / "clone").snakemake("--dry-run", "results/table1.csv")
    assert done.returncode == 0, done.stdout
    jobs = re.findall(r"^rule (\w+):\n((?:    .*\n)+)", done.stdout, re.MULTILINE)
    priorities: dict[str, dict[str, int]] = {}
    for rule, lines in jobs:
        run, priority = re.search(r"run=([\w-]+)", lines), re.search(r"priority: (\d+)", lines)
        if run:
            priorities.setdefault(rule, {})[run[1]] = int(priority[1]) if priority else 0
    trainings = priorities["unlearn"]
    assert max(trainings, key=trainings.__getitem__).startswith("core-forget25")
    before_the_gate, *others = sorted(priorities["classify_images"].values(), reverse=True)
    assert before_the_gate > max(trainings.values()) and min(trainings.values()) > max(others) > 0
    assert priorities["sample_shard"], "shards have the priority of their run"
