"""`snakemake --profile slurm` on a real Slurm: the table, one device for each job, and the failures of clusters.

In every case, the table and all files behind it must equal those of an undisturbed local run, bit for bit.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pytest
from cluster import NODES, PARTITIONS, Cluster, processes_of_job, wait_for
from support.checkout import REPOSITORY, Checkout

from corelib.files.hashing import sha256_of_path
from corelib.files.yaml_files import read_yaml

TABLE = "results/probe/table1.csv"
METHODS = ("ca_noise", "esd", "core")
SHARED = ("pretrained", "images", "slices", "latents", "embeddings", "reference")
"""The stages before unlearning, and the stages that all evaluations share."""

SITE = {"partition": "a100", "cpu_partition": "main", "gpu_model": "a100"}
POLL_OFTEN = ("--slurm-init-seconds-before-status-checks", "4")
"""A shorter polling interval; the profile's 10 seconds spare a controller that other people use."""

TIMEOUT = 240.0
"""Timeout in seconds for every wait."""


# The cluster, and an undisturbed run to compare with


class Sites:
    """Clusters of several kinds, one of which runs at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kind: dict[str, object] | None = None
        self._cluster: Cluster | None = None

    def cluster_with(self, **kind: object) -> Cluster:
        """The running cluster if it was started with these arguments of `Cluster`, otherwise a new one in its place."""
        if self._cluster is None or kind != self._kind:
            self.close()
            self._kind = kind
            self._cluster = Cluster(Path(tempfile.mkdtemp(dir=self._folder)), **kind)  # type: ignore[arg-type]
            self._cluster.start()
        return self._cluster

    def close(self) -> None:
        """Stop the running cluster."""
        if self._cluster is not None:
            self._cluster.stop()
        self._cluster = None


@pytest.fixture(scope="session")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    sites = Sites(tmp_path_factory.mktemp("slurm"))
    yield sites
    sites.close()


@pytest.fixture
def cluster(request: pytest.FixtureRequest, sites: Sites) -> Cluster:
    """The shared cluster; in the long version, with accounting."""
    return sites.cluster_with(accounting=request.config.option.markexpr != "not slow")


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = clone(tmp_path_factory.mktemp("reference") / "clone")
    done = checkout.snakemake("--cores", "2", TABLE)
    assert done.returncode == 0, done.stdout[-6000:]
    return checkout


def clone(folder: Path, **site: object) -> Checkout:
    """A checkout with the cluster's site file and the study of these tests."""
    checkout = Checkout.at(folder)
    shutil.copy(REPOSITORY / "tests/slurm/study.yaml", checkout.folder / "config/studies/probe.yaml")
    file = checkout.folder / "slurm/site.yaml"
    file.write_text(json.dumps({**read_yaml(file), **SITE, **site}))
    return checkout


def checkout_without(reference: Checkout, folder: Path, *methods: str, **site: object) -> Checkout:
    """A checkout in which everything is built except the runs of some methods and what depends on them."""
    checkout = clone(folder, **site)
    shutil.copytree(reference.folder / "runs", checkout.folder / "runs")
    for run in (checkout.folder / "runs").glob("*/*"):
        if run.name.startswith(tuple(f"{method}-" for method in methods)):
            shutil.rmtree(run)
    return checkout


@dataclass
class Workflow:
    """An invocation of Snakemake that runs while the test inspects the cluster."""

    checkout: Checkout
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def started(cls, checkout: Checkout, *arguments: str, called: str = "snakemake") -> Workflow:
        log = checkout.folder.parent / f"{called}.out"
        command = [sys.executable, "-m", "snakemake", "--profile", "slurm", TABLE, *POLL_OFTEN, *arguments]
        with log.open("wb") as stream:
            process = subprocess.Popen(command, cwd=checkout.folder, stdout=stream, stderr=stream)
        return cls(checkout, process, log)

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait_for_success(self, seconds: float = 420) -> None:
        """Wait for the end of the invocation, which must succeed."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            pytest.fail(f"it hangs:\n{self.output[-6000:]}")
        assert status == 0, self.output[-6000:]

    def run_of(self, method: str) -> Path:
        """The folder of the unlearning run of a method."""
        return next((self.checkout.folder / "runs/unlearning").glob(f"{method}-*"))

    def log_of(self, method: str) -> str:
        """The log of the last unlearning job of a method."""
        return next((self.checkout.folder / "logs/unlearning").glob(f"{method}-*")).read_text()

    def training_job(self, method: str, cluster: Cluster) -> str | None:
        """The number of a method's unlearning job; None unless it is running and has saved a checkpoint."""
        if not any((self.checkout.folder / "runs/unlearning").glob(f"{method}-*/checkpoint.pt")):
            return None
        return next(iter(cluster.running(f"rule_unlearn_wildcards_{method}-")), None)

    def wait_for_training_job(self, method: str, cluster: Cluster) -> str:
        """Wait until an unlearning job of a method has saved a checkpoint, and return the number of the job."""
        wait_for(f"a checkpoint of {method}", lambda: self.training_job(method, cluster), TIMEOUT)
        number = self.training_job(method, cluster)
        assert number is not None
        return number

    def has_resumed(self, method: str) -> bool:
        """Whether the job that completed a method's run resumed from the checkpoint of another job.

        A later job that found the run complete has kept the log.
        """
        found = re.search(r"resuming from step (\d+)", self.log_of(method))
        return found is not None and int(found[1]) > 0


def file_hashes(checkout: Checkout) -> dict[str, str]:
    """The hashes of all files of all runs and tables, except provenance records."""
    return {
        str(path.relative_to(checkout.folder)): sha256_of_path(path)
        for place in ("runs", "results")
        for path in sorted((checkout.folder / place).rglob("*"))
        if path.is_file() and "provenance" not in path.name and not path.name.startswith(".")
    }


def records(checkout: Checkout) -> list[dict]:
    """The provenance records of everything that was built on the cluster."""
    paths = (checkout.folder / "runs").rglob("*.provenance.json")
    return [record for record in (json.loads(path.read_text()) for path in paths) if record["node"]]


def assert_same(checkout: Checkout, reference: Checkout) -> None:
    """Assert that all bits equal those of the undisturbed run, and that no lease and no checkpoint is left."""
    found, expected = file_hashes(checkout), file_hashes(reference)
    assert {name for name in expected if found.get(name) != expected[name]} == set()
    assert found.keys() - expected.keys() == set()


def assert_one_device_each(checkout: Checkout) -> None:
    """Assert that each job recorded exactly one device, and that no two jobs used one at the same time."""
    used = defaultdict(list)
    for record in records(checkout):
        if record["node"].startswith("gpu"):
            assert re.fullmatch(r"\d+", record["visible_devices"]), record["visible_devices"]
            times = datetime.fromisoformat(record["began"]), datetime.fromisoformat(record["finished"])
            used[record["node"], record["visible_devices"]].append(times)
        else:
            assert record["visible_devices"] is None
    assert used
    for spans in used.values():
        spans.sort()
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans)), spans


# Short version: one run with a sequence of failures


def test_the_table_is_the_same_after_a_sequence_of_failures(
    cluster: Cluster, reference: Checkout, tmp_path: Path
) -> None:
    checkout = checkout_without(reference, tmp_path / "clone", *METHODS)
    workflow = Workflow.started(checkout, called="first")
    nodes: dict[str, str] = {}

    def break_node(number: str) -> None:
        nodes[number] = cluster.job(number)["NodeList"]
        cluster.break_node(nodes[number])

    strike = {
        "ca_noise": lambda number: cluster.run("scancel", number),
        "esd": lambda number: cluster.run("scontrol", "requeue", number),
        "core": break_node,
    }
    hit: dict[str, str] = {}
    while len(hit) < len(METHODS):  # CORE last, because the rest of the test needs its second attempt
        for method in METHODS:
            is_next = method not in hit and (method != "core" or len(hit) == len(METHODS) - 1)
            if is_next and (number := workflow.training_job(method, cluster)):
                hit[method] = number
                strike[method](number)
        time.sleep(0.1)
    broken = hit["core"]
    node = nodes[broken]
    wait_for("the failure of the node", lambda: cluster.states()[node].startswith("down"), TIMEOUT)
    wait_for("another attempt", lambda: broken in cluster.running("core-"), TIMEOUT)
    cluster.start_node(node)

    orphan = workflow.wait_for_training_job("core", cluster)
    assert orphan == broken
    assert "unlearn core-" in cluster.run("squeue", "--noheader", "--format=%100j")
    workflow.process.send_signal(signal.SIGKILL)
    again = Workflow.started(checkout, called="second")
    wait_for("a job that samples", lambda: cluster.running("rule_sample_shard"), TIMEOUT)
    cluster.end_daemon("slurmctld")  # queries and submissions fail meanwhile
    time.sleep(25)
    cluster.start_daemon("slurmctld")
    again.wait_for_success()

    assert_same(checkout, reference)
    assert_one_device_each(checkout)
    assert workflow.has_resumed("ca_noise") and workflow.has_resumed("esd")
    assert cluster.job(hit["ca_noise"])["JobState"] == "CANCELLED"
    assert int(cluster.job(hit["esd"])["Restarts"]) >= 1  # 2 if it was on the failed node
    assert int(cluster.job(broken)["Restarts"]) == 1
    assert "already complete (by job" in again.log_of("core")  # by the job that outlived the first Snakemake
    made = json.loads((again.run_of("core") / "manifest.provenance.json").read_text())
    assert made["scheduler_job"] == orphan


# Long version: the whole run with the unchanged profile, and each failure separately


@pytest.mark.slow
def test_the_table_built_on_the_cluster_equals_the_one_built_locally(
    cluster: Cluster, reference: Checkout, tmp_path: Path
) -> None:
    checkout = clone(tmp_path / "clone")
    before = set(cluster.jobs())
    began = time.monotonic()
    done = checkout.snakemake("--profile", "slurm", "--verbose", TABLE)
    assert done.returncode == 0, done.stdout[-6000:]
    assert_same(checkout, reference)
    assert_one_device_each(checkout)
    submitted = cluster.jobs().keys() - before
    assert len(submitted) == len(records(checkout)), "a job was submitted twice"
    calls = re.search(r"Status query timing summary at shutdown: calls=(\d+)", done.stdout)
    assert calls is not None
    print(f"{len(submitted)} submissions, {calls[1]} status calls, {time.monotonic() - began:.0f} s")


@pytest.mark.slow
def test_threads_are_cpus_of_the_job(cluster: Cluster, reference: Checkout, tmp_path: Path) -> None:
    checkout = checkout_without(reference, tmp_path / "clone", "core")
    checkout.edit("config/studies/probe.yaml", "threads: {world: 1, unlearning: 1", "threads: {world: 1, unlearning: 3")
    workflow = Workflow.started(checkout, "--until", "unlearn")
    wait_for("a job that unlearns", lambda: cluster.running("rule_unlearn_wildcards_core-"), TIMEOUT)
    (number,) = cluster.running("rule_unlearn_wildcards_core-")
    assert cluster.job(number)["NumCPUs"] == "3"
    workflow.process.terminate()
    cluster.run("scancel", number)
    workflow.process.wait(TIMEOUT)


Misfortune = Callable[[Workflow, Cluster], None]


def a_cancelled_job(workflow: Workflow, cluster: Cluster) -> None:
    number = workflow.wait_for_training_job("core", cluster)
    cluster.run("scancel", number)
    workflow.wait_for_success()
    assert cluster.job(number)["JobState"] == "CANCELLED"
    assert workflow.has_resumed("core")


def a_requeued_job(workflow: Workflow, cluster: Cluster) -> None:
    number = workflow.wait_for_training_job("core", cluster)
    cluster.run("scontrol", "requeue", number)
    workflow.wait_for_success()
    assert cluster.job(number)["Restarts"] == "1"
    assert workflow.has_resumed("core")


def a_node_that_fails(workflow: Workflow, cluster: Cluster) -> None:
    number = workflow.wait_for_training_job("core", cluster)
    node = cluster.job(number)["NodeList"]
    cluster.break_node(node)
    workflow.wait_for_success()
    cluster.start_node(node)
    assert cluster.job(number)["Restarts"] == "1"
    assert cluster.job(number)["NodeList"] != node
    assert workflow.has_resumed("core")
    wait_for("the node to come back", lambda: cluster.states()[node] == "idle", TIMEOUT)


def a_node_that_is_drained(workflow: Workflow, cluster: Cluster) -> None:
    number = workflow.wait_for_training_job("core", cluster)
    node = cluster.job(number)["NodeList"]
    cluster.run("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=maintenance")
    workflow.wait_for_success()
    assert cluster.job(number)["JobState"] == "COMPLETED"
    after = [record for record in records(workflow.checkout) if int(record["scheduler_job"]) > int(number)]
    assert after and all(record["node"] != node for record in after)
    cluster.run("scontrol", "update", f"NodeName={node}", "State=RESUME")


def a_job_over_its_time_limit(workflow: Workflow, cluster: Cluster) -> None:
    """The job stops, as if its file system hung, until its time limit of one minute; Slurm then terminates it."""
    number = workflow.wait_for_training_job("core", cluster)
    cluster.run("scontrol", "update", f"JobId={number}", "TimeLimit=1")
    for pid in processes_of_job(number, ".snakemake/scripts"):
        os.kill(pid, signal.SIGSTOP)
    workflow.wait_for_success()
    assert cluster.job(number)["JobState"] == "TIMEOUT"
    assert workflow.has_resumed("core")


def a_job_without_enough_memory(workflow: Workflow, cluster: Cluster) -> None:
    workflow.wait_for_success()
    jobs = [number for number, job in cluster.jobs().items() if "rule_unlearn_wildcards_core-" in job["rule"]]
    first, second = sorted(jobs, key=int)[-2:]
    assert cluster.state_in_accounts(first) == "OUT_OF_MEMORY"
    assert cluster.job(second)["JobState"] == "COMPLETED"
    assert int(cluster.memory_mib(second)) == 2 * int(cluster.memory_mib(first))


def a_killed_snakemake(workflow: Workflow, cluster: Cluster) -> None:
    number = workflow.wait_for_training_job("core", cluster)
    workflow.process.send_signal(signal.SIGKILL)
    workflow.process.wait()
    again = Workflow.started(workflow.checkout, called="again")
    again.wait_for_success()
    assert "already complete (by job" in again.log_of("core")
    made = json.loads((again.run_of("core") / "manifest.provenance.json").read_text())
    assert made["scheduler_job"] == number


def a_snakemake_killed_while_its_job_waits(workflow: Workflow, cluster: Cluster) -> None:
    """The old job, which is still in the queue, must not start after the job that the next Snakemake submits."""
    number = workflow.wait_for_training_job("core", cluster)
    cluster.run("scontrol", "requeuehold", number)
    wait_for("the held job", lambda: cluster.job(number)["JobState"] == "PENDING", TIMEOUT)
    workflow.process.send_signal(signal.SIGKILL)
    workflow.process.wait()
    again = Workflow.started(workflow.checkout, called="again")
    again.wait_for_success()
    assert "Cancelled 1 job that an earlier Snakemake left in the queue." in again.output
    assert cluster.job(number)["JobState"] == "CANCELLED"
    assert again.has_resumed("core")


def ctrl_c(workflow: Workflow, cluster: Cluster) -> None:
    number = workflow.wait_for_training_job("core", cluster)
    workflow.process.send_signal(signal.SIGINT)
    workflow.process.wait(TIMEOUT)
    wait_for("the end of the job", lambda: cluster.job(number)["JobState"] == "CANCELLED", TIMEOUT)
    again = Workflow.started(workflow.checkout, called="again")
    again.wait_for_success()
    assert again.has_resumed("core")


ARGUMENTS = {a_job_without_enough_memory: ("--set-resources", "unlearn:mem_mb=700*attempt")}


@pytest.mark.slow
@pytest.mark.parametrize(
    "misfortune",
    [
        a_cancelled_job,
        a_requeued_job,
        a_node_that_fails,
        a_node_that_is_drained,
        a_job_over_its_time_limit,
        a_job_without_enough_memory,
        a_killed_snakemake,
        a_snakemake_killed_while_its_job_waits,
        ctrl_c,
    ],
    ids=lambda misfortune: misfortune.__name__,
)
def test_the_table_is_the_same_in_spite_of(
    misfortune: Misfortune, cluster: Cluster, reference: Checkout, tmp_path: Path
) -> None:
    checkout = checkout_without(reference, tmp_path / "clone", "core")
    misfortune(Workflow.started(checkout, *ARGUMENTS.get(misfortune, ())), cluster)
    assert_same(checkout, reference)
    assert_one_device_each(checkout)


@pytest.mark.slow
@pytest.mark.parametrize("status_command", ["squeue", "sacct"])
def test_a_cancelled_job_is_noticed_with_either_status_command(
    status_command: str, cluster: Cluster, reference: Checkout, tmp_path: Path
) -> None:
    checkout = checkout_without(reference, tmp_path / "clone", "core")
    workflow = Workflow.started(checkout, "--slurm-status-command", status_command)
    number = workflow.wait_for_training_job("core", cluster)
    cluster.run("scancel", number)
    workflow.wait_for_success(240)
    assert f"SLURM-job '{number}' failed, SLURM status is: 'CANCELLED'" in workflow.output
    assert cluster.state_in_accounts(number).startswith("CANCELLED by")
    assert_same(checkout, reference)


@pytest.mark.slow
def test_a_second_snakemake_in_the_same_folder_is_refused(
    cluster: Cluster, reference: Checkout, tmp_path: Path
) -> None:
    checkout = checkout_without(reference, tmp_path / "clone", "core")
    first = Workflow.started(checkout, called="first")
    first.wait_for_training_job("core", cluster)
    second = checkout.snakemake("--profile", "slurm", TABLE)
    assert second.returncode != 0
    assert "Snakemake already runs here, process" in second.stdout
    first.wait_for_success()
    assert_same(checkout, reference)


# Long version: other sites


def wait_for_exit(workflow: Workflow, seconds: float) -> int:
    """Wait for the end of an invocation, and return its exit status."""
    try:
        return workflow.process.wait(seconds)
    except subprocess.TimeoutExpired:
        workflow.process.kill()
        pytest.fail(f"it hangs:\n{workflow.output[-6000:]}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("daemon", "seconds", "accounting"),
    [
        ("slurmctld", 40, False),
        ("slurmctld", 600, False),
        ("slurmctld", 600, True),
        ("slurmdbd", 30, True),
        ("slurmdbd", 600, True),
    ],
)
def test_the_table_is_built_after_an_outage(
    daemon: str, seconds: float, accounting: bool, sites: Sites, reference: Checkout, tmp_path: Path
) -> None:
    # the controller forgets jobs that end during a long outage
    cluster = sites.cluster_with(accounting=accounting, min_job_age=120)
    checkout = checkout_without(reference, tmp_path / "clone", *METHODS, account="unlearning" if accounting else None)
    workflow = Workflow.started(checkout)
    workflow.wait_for_training_job("core", cluster)
    cluster.end_daemon(daemon)
    time.sleep(seconds)
    assert workflow.process.poll() is None, workflow.output[-6000:]
    cluster.start_daemon(daemon)
    began = time.monotonic()
    workflow.wait_for_success(900)
    print(f"{daemon} down for {seconds} s, {accounting=}: table built {time.monotonic() - began:.0f} s later")
    assert_same(checkout, reference)
    assert workflow.output.count("Error in rule") == 0, workflow.output[-6000:]


@pytest.mark.slow
def test_an_outage_that_is_too_long_ends_with_one_error_and_keeps_the_jobs(
    sites: Sites, reference: Checkout, tmp_path: Path
) -> None:
    cluster = sites.cluster_with(accounting=False)
    checkout = checkout_without(reference, tmp_path / "clone", "core", outage=1)
    workflow = Workflow.started(checkout)
    number = workflow.wait_for_training_job("core", cluster)
    cluster.end_daemon("slurmctld")
    assert wait_for_exit(workflow, 240) == 1
    assert "Slurm has not answered for 1 minutes" in workflow.output
    assert "ask for the target again when Slurm answers" in workflow.output
    cluster.start_daemon("slurmctld")
    wait_for("the controller", lambda: cluster.states().get("gpu1"), TIMEOUT)
    again = Workflow.started(checkout, called="again")
    again.wait_for_success()
    assert_same(checkout, reference)
    made = json.loads((again.run_of("core") / "manifest.provenance.json").read_text())
    assert made["scheduler_job"] == number


@pytest.mark.slow
@pytest.mark.parametrize("models", [(None, None), ("a100", "v100")])
def test_a_site_without_gpu_models_and_a_site_with_two(
    models: tuple[str | None, str | None], sites: Sites, reference: Checkout, tmp_path: Path
) -> None:
    nodes = tuple(replace(node, gpu_model=model) for node, model in zip(NODES, (*models, None), strict=True))
    cluster = sites.cluster_with(nodes=nodes)
    chosen = models[1]
    checkout = checkout_without(reference, tmp_path / "clone", "core", gpu_model=chosen)
    Workflow.started(checkout).wait_for_success()
    assert_same(checkout, reference)
    assert_one_device_each(checkout)
    on_gpus = {record["node"] for record in records(checkout) if record["node"].startswith("gpu")}
    assert on_gpus == {"gpu2"} if chosen else on_gpus <= {"gpu1", "gpu2"}
    assert cluster.jobs()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("site", "sentence"),
    [
        (
            {"max_minutes": 1440},
            "they request 60 minutes, expected at most 5 in partition a100; set max_minutes: 5 in slurm/site.yaml",
        ),
        ({"partition": "gpus"}, "partition is 'gpus', expected one of a100, main"),
        ({"partition": "main"}, "partition main has no GPUs"),
        (
            {"gpu_model": "h100", "max_minutes": 5},
            "gpu_model is 'h100', and no node of partition a100 has such a GPU, expected one of a100",
        ),
        ({"account": "theirs", "max_minutes": 5}, "account is 'theirs', expected one of yours: root, unlearning"),
        ({"qos": "fast", "max_minutes": 5}, "qos is 'fast', expected one of normal"),
    ],
)
def test_a_job_that_could_never_start_is_an_error_before_any_submission(
    site: dict[str, object], sentence: str, sites: Sites, reference: Checkout, tmp_path: Path
) -> None:
    short = tuple(line.replace("MaxTime=1-0", "MaxTime=5") if "a100" in line else line for line in PARTITIONS)
    cluster = sites.cluster_with(accounting=True, partitions=short)
    checkout = checkout_without(reference, tmp_path / "clone", "core", **{"seconds": None, **site})
    before = set(cluster.jobs())
    workflow = Workflow.started(checkout)
    assert wait_for_exit(workflow, 120) == 1
    assert sentence in workflow.output and "Traceback" not in workflow.output, workflow.output[-3000:]
    assert set(cluster.jobs()) == before
    command = [sys.executable, "-m", "corelib", "preflight", "probe"]
    done = subprocess.run(command, cwd=checkout.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and sentence in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_a_limit_on_submissions_fails_no_job(sites: Sites, reference: Checkout, tmp_path: Path) -> None:
    cluster = sites.cluster_with(accounting=True)
    cluster.run("sacctmgr", "--immediate", "add", "qos", "few", "MaxSubmitJobsPerUser=1")
    cluster.run("sacctmgr", "--immediate", "modify", "user", "root", "set", "qos+=few")
    checkout = checkout_without(reference, tmp_path / "clone", *METHODS, qos="few", account="unlearning")
    workflow = Workflow.started(checkout)
    workflow.wait_for_success(900)
    assert_same(checkout, reference)
    assert "Slurm accepts no more jobs for now (" in workflow.output and "Error in rule" not in workflow.output


@pytest.mark.slow
def test_a_node_without_the_environment_is_named_and_avoided(sites: Sites, reference: Checkout, tmp_path: Path) -> None:
    cluster = sites.cluster_with(accounting=True)
    cluster.break_node("gpu1")
    cluster.start_node("gpu1", hidden=Path(sys.prefix).resolve())
    wait_for("the node", lambda: cluster.states()["gpu1"] == "idle", TIMEOUT)
    checkout = checkout_without(reference, tmp_path / "clone", *METHODS)
    workflow = Workflow.started(checkout, "--retries", "1")
    workflow.wait_for_success(600)
    assert_same(checkout, reference)
    assert re.search(r"Slurm's state of job \d+: FAILED on node gpu1", workflow.output)
    assert "Node: gpu1" in workflow.output
    assert {record["node"] for record in records(checkout) if record["node"].startswith("gpu")} == {"gpu2"}
    cluster.break_node("gpu1")
    cluster.start_node("gpu1")
    wait_for("the node", lambda: cluster.states()["gpu1"] == "idle", TIMEOUT)


@pytest.mark.slow
def test_an_invocation_with_only_local_steps_takes_seconds(sites: Sites, reference: Checkout, tmp_path: Path) -> None:
    sites.cluster_with(accounting=True)
    checkout = checkout_without(reference, tmp_path / "clone")
    shutil.rmtree(checkout.folder / "results", ignore_errors=True)
    began = time.monotonic()
    done = checkout.snakemake("--profile", "slurm", TABLE)
    assert done.returncode == 0, done.stdout[-3000:]
    assert time.monotonic() - began < 40
    print(f"an invocation of local steps alone: {time.monotonic() - began:.0f} s")


@pytest.mark.slow
def test_snakemake_in_a_job_continues_in_another_job_before_its_time_limit(
    sites: Sites, reference: Checkout, tmp_path: Path
) -> None:
    cluster = sites.cluster_with(accounting=True)
    checkout = checkout_without(reference, tmp_path / "clone", *METHODS)
    (checkout.folder / ".venv").symlink_to(sys.prefix)
    (checkout.folder / "logs").mkdir()
    command = ["sbatch", "--parsable", "--partition=main", "--time=4", "slurm/controller.sh", TABLE, *POLL_OFTEN]
    done = subprocess.run(command, cwd=checkout.folder, capture_output=True, text=True, check=True)
    first = done.stdout.strip()
    lease = checkout.folder / ".snakemake/corelib/controller.lease"
    wait_for("the controller's lease", lambda: lease.exists() and lease.read_text(), TIMEOUT)
    assert json.loads(lease.read_text())["job"] == first

    def controllers() -> dict[str, str]:
        listed = cluster.run("squeue", "--noheader", "--states=all", "--name=snakemake", "--format=%i %T").splitlines()
        return {number: state for number, state in map(str.split, listed) if int(number) >= int(first)}

    wait_for(
        "the end of the last controller",
        lambda: not {"PENDING", "RUNNING", "COMPLETING"} & set(controllers().values()),
        1200,
    )
    output = "".join(path.read_text() for path in sorted((checkout.folder / "logs").glob("controller-*.log")))
    assert (checkout.folder / TABLE).exists(), output[-6000:]
    assert_same(checkout, reference)
    assert len(controllers()) >= 2 and set(controllers().values()) == {"COMPLETED"}, output[-6000:]


@pytest.mark.slow
def test_a_cancelled_controller_cancels_its_jobs(sites: Sites, reference: Checkout, tmp_path: Path) -> None:
    cluster = sites.cluster_with(accounting=True)
    checkout = checkout_without(reference, tmp_path / "clone", "core")
    (checkout.folder / ".venv").symlink_to(sys.prefix)
    (checkout.folder / "logs").mkdir()
    command = ["sbatch", "--parsable", "--partition=main", "--time=60", "slurm/controller.sh", TABLE, *POLL_OFTEN]
    done = subprocess.run(command, cwd=checkout.folder, capture_output=True, text=True, check=True)
    wait_for("a job that unlearns", lambda: cluster.running("rule_unlearn_wildcards_core-"), TIMEOUT)
    cluster.run("scancel", done.stdout.strip())
    wait_for("the end of its jobs", lambda: not cluster.running("rule_"), TIMEOUT)
    output = next((checkout.folder / "logs").glob("controller-*.log")).read_text()
    assert not (checkout.folder / TABLE).exists(), output[-3000:]
