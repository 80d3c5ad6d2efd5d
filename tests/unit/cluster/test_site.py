"""The values of a site, and the run times that jobs request."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.checkout import REPOSITORY, Checkout

from corelib.cluster.site import Site
from corelib.costs.device_time import Seconds
from corelib.costs.job_requests import OVERHEAD_MINUTES, SAFETY_FACTOR, SITE_NETWORKS, requested_minutes
from corelib.costs.workload import workload_of
from corelib.errors import ConfigurationError
from corelib.files.yaml_files import read_yaml
from corelib.runs.stage_registry import STAGES
from corelib.study.loading import load_study
from corelib.study.plan import Plan
from corelib.study.published import load_published
from corelib.study.schema import Study

CONFIG = REPOSITORY / "config"
SECONDS = Seconds(train=0.08, denoise=0.015, encode=0.5)


@pytest.fixture(scope="module")
def plan() -> Plan:
    study: Study = load_study("paper", CONFIG)
    return Plan("paper", study, load_published(CONFIG))


def minutes(run, attempt: int = 1) -> int:
    return requested_minutes(run, SECONDS, attempt)


# Names


def test_empty_values_are_left_to_slurm() -> None:
    assert Site.of({}).resources_of("fid") == Site.of({"account": None, "qos": ""}).resources_of("fid") == {"gpu": 1}


def test_jobs_without_a_gpu_request_no_model_and_their_own_partition() -> None:
    site = Site.of({"account": "4711", "partition": "a100", "cpu_partition": "std", "gpu_model": "a100", "qos": "long"})
    expected = {"gpu": 1, "slurm_account": "4711", "slurm_partition": "a100", "gpu_model": "a100", "qos": "long"}
    assert site.resources_of("unlearning") == expected
    assert site.resources_of("slices") == {"slurm_account": "4711", "slurm_partition": "std", "qos": "long"}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"acount": "x"}, "unknown key acount, expected `account`, or else one of partition, cpu_partition, gpu_model"),
        ({"learning_rate": 1e-5}, "set hyperparameters in a study, in config/studies/."),
        ({"account": ["a"]}, "account is ['a'], expected a name."),
        ({"seconds": 3}, "seconds is 3, expected a section with train, denoise, encode."),
        ({"account": 83}, "account is the number 83, expected text, since a number loses its leading zeros and under"),
        ({"account": 20230239022}, 'put it in quotes: account: "..." in the file, --config \'account="..."\' on the'),
        ({"qos": 1.5}, "qos is the number 1.5, expected text"),
        ({"jobs": 0}, "jobs is 0, expected a number of jobs."),
        ({"outage": "long"}, "outage is 'long', expected a number of minutes."),
        ({"max_minutes": 0}, "max_minutes is 0, expected a number of minutes."),
        (
            {"gpu_model": "a100:2"},
            "gpu_model is 'a100:2', expected letters, digits, _, . and -, as in the column GRES of",
        ),
        ({"account": True}, "account is True, expected a name."),
        ({"seconds": {"train": 0.1, "denoise": 0.1}}, "seconds.encode is missing, expected a positive number."),
        (
            {"seconds": {"train": -1.0, "denoise": 0.1, "encode": 1.0}},
            "seconds.train is -1.0, expected a positive number.",
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
    assert Site.of(values).resources_of("fid") == {"gpu": 1, "gpu_model": "a100"}


def test_every_submitted_rule_requests_what_its_stage_needs() -> None:
    texts = [
        text for path in sorted((REPOSITORY / "rules").glob("*.smk")) for text in path.read_text().split("\nrule ")[1:]
    ]
    submitted = {re.findall(r'resources_of\("(\w+)"\)', text)[0] for text in texts if "localrule: True" not in text}
    assert submitted == {name for name, stage in STAGES.items() if stage.runs_on != "snakemake"}


@pytest.mark.parametrize("values", [{}, {"gpu_model": None}, {"gpu_model": ""}])
def test_a_site_whose_gpus_have_no_type_names_no_model(values: dict) -> None:
    assert Site.of(values).resources_of("fid") == {"gpu": 1}


def test_the_requests_of_jobs_override_other_default_resources(tmp_path: Path) -> None:
    """`--default-resources` on the command line replaces those of the profile."""
    clone = Checkout.at(tmp_path / "clone")
    command = ("--profile", "slurm", "-n", "results/tiny/table1.csv")
    outputs = [clone.snakemake(*command, *more).stdout for more in ((), ("--default-resources", "slurm_account=x"))]
    usual, replaced = map(requests_of_jobs, outputs)
    assert replaced == usual
    for rule, memory in (("unlearn", 32000), ("embed_prompts", 8000), ("slice_images", 4000)):
        requests = [requests for (name, _), requests in replaced.items() if name == rule]
        assert requests
        for request in requests:
            assert f"mem_mb={memory}" in request
            assert any(resource.startswith("runtime=") for resource in request)


def requests_of_jobs(dry_run: str) -> dict[tuple[str, str], set[str]]:
    """Requested resources of each job in the output of a dry run, by rule and output; the order of jobs varies."""
    requests = {}
    for job in dry_run.split("\nrule ")[1:]:
        name, output = job.split(":")[0], re.findall(r"output: (.*)", job)[0]
        requests[name, output] = set(re.findall(r"(?:mem_mb|runtime|threads|gpu)[:=] ?\w+", job))
    return requests


def test_a_site_can_be_set_on_the_command_line(tmp_path: Path) -> None:
    clone = Checkout.at(tmp_path / "clone")
    values = ("account=us", "partition=fat", "gpu_model=h100")
    done = clone.snakemake("--profile", "slurm", "-n", "results/tiny/table1.csv", "--config", *values)
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
    clone.edit("slurm/site.yaml", "account:   ", "account: 010")  # Snakemake reads this as 8
    done = clone.snakemake("--profile", "slurm", "-n", "results/tiny/table1.csv")
    assert done.returncode != 0
    assert done.stdout.count("Error: slurm/site.yaml, line 6: not readable as YAML: YAML readers disagree about") == 1
    assert "`010` means, expected a number without leading zeros, or quotes around it for text." in done.stdout
    assert "Traceback" not in done.stdout


# Run times


def test_the_run_time_of_a_training_follows_from_the_passes_of_its_steps(plan: Plan) -> None:
    run = plan.unlearning("Forget25", "core", None)
    steps_of_pairs = 25 * 20 * 3  # one epoch over the forget set
    passes = 2 * run.settings.length.epochs * steps_of_pairs  # forget and retain pairs: the student and the teacher
    seconds = passes * (SECONDS.train + SECONDS.denoise)
    assert minutes(run) == -(-(OVERHEAD_MINUTES * 60 + SAFETY_FACTOR * seconds) // 60)


def test_a_model_that_samples_its_own_images_requests_time_for_that_too(plan: Plan) -> None:
    paper, released = (plan.unlearning("Forget01", name, None) for name in ("esd", "esd_released"))
    steps, half_of_the_way = 1000, 49 / 2
    target = 2  # passes of the teacher
    seconds = steps * (SECONDS.train + (target + 2 * half_of_the_way) * SECONDS.denoise)
    assert minutes(released) == -(-(OVERHEAD_MINUTES * 60 + SAFETY_FACTOR * seconds) // 60) > minutes(paper)


def test_a_sampling_job_requests_the_time_of_one_shard(plan: Plan) -> None:
    run = plan.samples("Forget01", "original", None)
    images = run.execution.batches_per_shard * run.settings.sampling.batch
    seconds = images * (2 * run.settings.sampling.scheduler.steps * SECONDS.denoise + SECONDS.encode)
    assert minutes(run) == -(-(OVERHEAD_MINUTES * 60 + SAFETY_FACTOR * seconds) // 60)


def test_more_work_and_further_attempts_request_more_time(plan: Plan) -> None:
    small, large = plan.unlearning("Forget01", "core", None), plan.unlearning("Forget25", "core", None)
    assert minutes(small) < minutes(large)
    assert minutes(large, attempt=3) == 3 * minutes(large)


def test_no_job_requests_more_than_the_cluster_grants(plan: Plan) -> None:
    run = plan.unlearning("Forget25", "core", None)
    assert requested_minutes(run, SECONDS, attempt=3, max_minutes=60) == 60


def test_every_stage_with_costs_has_a_run_time(plan: Plan) -> None:
    runs = {run.stage: run for product in plan.products().values() for run in product.with_all_inputs().values()}
    runs["generated"] = plan.unlearning("Forget06", "ca_released", None).inputs["generated"]
    for stage, run in runs.items():
        if SECONDS.costs.of(workload_of(run, SITE_NETWORKS)):
            assert OVERHEAD_MINUTES < minutes(run) < 24 * 60, stage
