"""What a cluster calls its things, and the run times that jobs ask for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import REPOSITORY, Checkout

from corelib.configuration import Study
from corelib.effort import MARGIN, OVERHEAD_MINUTES, STAGES, Seconds, images_trained, minutes_of
from corelib.errors import ConfigurationError
from corelib.plan import Plan
from corelib.site import Site
from corelib.studies import load_published, load_study
from corelib.yaml_files import read_yaml

CONFIG = REPOSITORY / "config"
SECONDS = Seconds(trained=0.1, denoised=0.03, looked_at=0.5)


@pytest.fixture(scope="module")
def plan() -> Plan:
    study: Study = load_study("paper", CONFIG)
    return Plan("paper", study, load_published(CONFIG))


def minutes(run, attempt: int = 1) -> int:
    return minutes_of(run.specification, lambda role: run.inputs[role].specification, SECONDS, attempt)


# Names


def test_what_is_left_empty_is_left_to_slurm() -> None:
    assert Site.of({}).with_gpu == Site.of({"account": None, "qos": ""}).with_gpu == {}


def test_jobs_without_a_gpu_ask_for_no_model_and_for_their_own_partition() -> None:
    site = Site.of({"account": 4711, "partition": "a100", "cpu_partition": "std", "gpu_model": "a100", "qos": "long"})
    assert site.with_gpu == {"slurm_account": "4711", "slurm_partition": "a100", "gpu_model": "a100", "qos": "long"}
    assert site.without_gpu == {"slurm_account": "4711", "slurm_partition": "std", "qos": "long"}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"acount": "x"}, "unknown key acount, expected one of account, partition, cpu_partition, gpu_model"),
        ({"learning_rate": 1e-5}, "hyperparameters are said in a study, in config/studies/."),
        ({"account": ["a"]}, "account is ['a'], expected a name."),
        ({"seconds": 3}, "seconds is 3, expected a section with trained, denoised, looked_at."),
        ({"longest": 0}, "longest is 0, expected a number of minutes."),
        ({"gpu_model": "nvidia_a100-sxm4-80gb"}, "'nvidia_a100-sxm4-80gb', expected letters, digits, _ and . (the"),
        ({"seconds": {"trained": 0.1, "denoised": 0.1}}, "seconds.looked_at is missing, expected a positive number."),
        (
            {"seconds": {"trained": -1.0, "denoised": 0.1, "looked_at": 1.0}},
            "seconds.trained is -1.0, expected a positive number.",
        ),
    ],
)
def test_a_wrong_site_is_refused_in_one_sentence(values: dict, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Site.of(values)
    assert str(caught.value).startswith("slurm/site.yaml or --config: ")
    assert sentence in str(caught.value)


def test_the_shipped_site_is_complete_and_valid() -> None:
    values = read_yaml(REPOSITORY / "slurm/site.yaml")
    assert values.keys() == Site.model_fields.keys()
    assert Site.of(values).with_gpu == {"gpu_model": "a100"}


def test_every_stage_that_computes_with_the_papers_models_says_how_much_memory_it_takes() -> None:
    said = read_yaml(REPOSITORY / "slurm/config.yaml")["set-resources"]
    rules = [
        text.split(":")[0]
        for name in ("slices", "unlearning", "sampling", "evaluation")
        for text in (REPOSITORY / f"rules/{name}.smk").read_text().split("\nrule ")[1:]
        if "with_gpu" in text
    ]
    assert len(rules) == 9 and said.keys() >= set(rules)
    assert said["encode_generated"] == said["encode_images"]


def test_a_site_can_be_said_on_the_command_line(tmp_path: Path) -> None:
    clone = Checkout.at(tmp_path / "clone")
    said = ("account=us", "partition=fat", "gpu_model=h100")
    done = clone.snakemake("--profile", "slurm", "-n", "results/tiny/table1.csv", "--config", *said)
    assert done.returncode == 0, done.stdout
    job = done.stdout.split("rule unlearn:")[1].split("\nrule ")[0]
    for resource in ("slurm_account=us", "slurm_partition=fat", "gpu_model=h100", "gpu=1", "mem_mb=32000"):
        assert resource in job
    job = done.stdout.split("rule slice_images:")[1].split("\nrule ")[0]
    assert "gpu" not in job and "slurm_partition" not in job and "slurm_account=us" in job


def test_a_wrong_key_on_the_command_line_stops_before_any_job(tmp_path: Path) -> None:
    clone = Checkout.at(tmp_path / "clone")
    done = clone.snakemake("-c1", "results/tiny/table1.csv", "--config", "learning_rate=3")
    assert done.returncode != 0
    assert done.stdout.count("Error: ") == 1 and "unknown key learning_rate" in done.stdout
    assert "Traceback" not in done.stdout and not (clone.folder / "runs").exists()


def test_a_value_that_yaml_readers_disagree_about_stops_before_any_job(tmp_path: Path) -> None:
    clone = Checkout.at(tmp_path / "clone")
    clone.edit("slurm/site.yaml", "account:   ", "account: 010")  # 8 to Snakemake
    done = clone.snakemake("--profile", "slurm", "-n", "results/tiny/table1.csv")
    assert done.returncode != 0
    assert done.stdout.count("Error: slurm/site.yaml, line 5: not readable as YAML: YAML readers disagree about") == 1
    assert "`010` means, expected a number without leading zeros, or quotes around it for text." in done.stdout
    assert "Traceback" not in done.stdout


# Run times


def test_the_paper_trains_on_as_many_images_as_its_steps_have(plan: Plan) -> None:
    run = plan.unlearning("Forget25", "core", None)
    steps_of_pairs = 25 * 20 * 3  # one epoch over the forget set
    epochs = run.settings.length.epochs
    images = images_trained(run.specification, lambda role: run.inputs[role].specification)
    assert images == 2 * epochs * steps_of_pairs  # forget and retain pairs
    assert minutes(run) == -(-(OVERHEAD_MINUTES * 60 + MARGIN * images * SECONDS.trained) // 60)


def test_a_model_that_samples_its_own_images_asks_for_that_time_too(plan: Plan) -> None:
    paper, released = (plan.unlearning("Forget01", name, None) for name in ("esd", "esd_released"))
    steps, half_of_the_way = 1000, 49 / 2
    seconds = steps * (SECONDS.trained + half_of_the_way * SECONDS.denoised)
    assert minutes(released) == -(-(OVERHEAD_MINUTES * 60 + MARGIN * seconds) // 60) > minutes(paper)


def test_more_work_asks_for_more_time_and_so_does_another_attempt(plan: Plan) -> None:
    small, large = plan.unlearning("Forget01", "core", None), plan.unlearning("Forget25", "core", None)
    assert minutes(small) < minutes(large)
    assert minutes(large, attempt=3) == 3 * minutes(large)


def test_nobody_asks_for_more_than_the_cluster_grants(plan: Plan) -> None:
    run = plan.unlearning("Forget25", "core", None)
    below = {role: made.specification for role, made in run.inputs.items()}
    assert minutes_of(run.specification, below.__getitem__, SECONDS, attempt=3, longest=60) == 60


def test_every_stage_whose_work_grows_has_a_run_time(plan: Plan) -> None:
    runs = {run.stage: run for product in plan.products().values() for run in product.with_all_inputs().values()}
    runs["generated"] = plan.unlearning("Forget06", "ca_released", None).inputs["generated"]
    for stage in STAGES:
        assert OVERHEAD_MINUTES < minutes(runs[stage]) < 24 * 60, stage


# sacct


@pytest.mark.parametrize("status", [0, 1])
def test_sacct_says_cancelled_as_the_executor_expects_it(status: int, tmp_path: Path) -> None:
    real = tmp_path / "sacct"
    real.write_text(f'#!/bin/sh\necho "$1"\nprintf "7|CANCELLED by 1000\\n8|COMPLETED\\n"\nexit {status}\n')
    real.chmod(0o755)
    wrapper = REPOSITORY / "slurm/bin/sacct"
    environment = {**os.environ, "PATH": f"{wrapper.parent}:{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sacct", "a b"], env=environment, executable=wrapper, capture_output=True, text=True, check=False
    )
    assert done.returncode == status
    assert done.stdout == ("" if status else "a b\n7|CANCELLED\n8|COMPLETED\n")


def test_without_a_real_sacct_the_wrapper_says_so() -> None:
    wrapper = REPOSITORY / "slurm/bin/sacct"
    environment = {"PATH": f"{wrapper.parent}:/nowhere"}
    done = subprocess.run(["/bin/sh", wrapper], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert "there is none on PATH" in done.stderr
