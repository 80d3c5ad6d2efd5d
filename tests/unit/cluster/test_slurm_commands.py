"""The commands that Snakemake's executor calls instead of Slurm's, tested with scripts in place of Slurm's."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.checkout import REPOSITORY

from corelib.cluster.site import Site as SiteValues

RUN = "2f6b3a52-5b6e-4d62-9d0e-0d6f7a1e5a11"
COMMENT = "rule_unlearn_wildcards_core-forget06-0123456789ab"
SUBMISSION = ["--parsable", "--job-name", RUN, "--comment", COMMENT, "-p", "a100", "--wrap=true"]

STATUS = ["--format=%i|%T", "--states=all", "--noheader", "--name", RUN]
"""The executor's arguments of `squeue`."""


class Site:
    """Scripts in place of Slurm's commands, with answers that the test sets, and the notes of this workflow."""

    def __init__(self, folder: Path, patience: float = 60) -> None:
        self.programs, self.notes, self.tools = folder / "programs", folder / "notes", folder / "tools"
        for place in (self.programs, self.notes, self.tools):
            place.mkdir()
        for tool in ("cat", "date", "sed", "touch", "sh"):  # but not the commands of an installed Slurm
            (self.tools / tool).symlink_to(str(shutil.which(tool)))
        (self.notes / "settings.json").write_text(json.dumps({"patience": patience, "pause": 0.1}))

    def set_output(self, program: str, text: str, *, status: int = 0, errors: str = "") -> None:
        """Make a program print a text from now on; `calls` returns its command lines."""
        self.set_script(program, f"cat <<'END'\n{text}\nEND\necho '{errors}' >&2\nexit {status}")

    def set_script(self, program: str, script: str) -> None:
        """Make a program run a script from now on."""
        path = self.programs / program
        new = path.with_name(f"{program}.new")
        new.write_text(f'#!/bin/sh\necho "$@" >> {self.programs}/{program}.calls\n{script}\n')
        new.chmod(0o755)
        new.replace(path)

    def calls(self, program: str) -> list[str]:
        """The command lines with which a program was called."""
        path = self.programs / f"{program}.calls"
        return path.read_text().splitlines() if path.exists() else []

    def start(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        """Start this workflow's command as the executor does."""
        variables = {
            **os.environ,
            "PATH": f"{REPOSITORY}/slurm/bin:{self.programs}:{self.tools}",
            "CORELIB_SLURM": str(self.notes),
            "CORELIB_PYTHON": sys.executable,
        }
        command = [str(REPOSITORY / "slurm/bin" / program), *arguments]
        return subprocess.Popen(command, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def call(self, program: str, *arguments: str) -> tuple[int, str, str]:
        """Call this workflow's command; return its exit status, output and errors."""
        process = self.start(program, *arguments)
        output, errors = process.communicate(timeout=60)
        return process.returncode, output, errors

    def record_submission(self, number: str, comment: str = COMMENT, seconds_ago: float = 0) -> None:
        """Record a job as submitted."""
        line = {"number": number, "run": RUN, "comment": comment, "submitted": time.time() - seconds_ago}
        with (self.notes / "jobs.jsonl").open("a") as stream:
            stream.write(f"\n{json.dumps(line)}\n")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


# States


def test_the_executor_sees_only_its_own_jobs(site: Site) -> None:
    for number in "78":
        site.record_submission(number)
    site.set_output("squeue", "6|FAILED|gpu1|None\n7|RUNNING|gpu1|None\n8|CANCELLED||None")
    assert site.call("squeue", *STATUS) == (0, "7|RUNNING\n8|CANCELLED\n", "")


@pytest.mark.parametrize("program", ["squeue", "sacct"])
def test_a_query_is_repeated_until_the_controller_answers(program: str, site: Site) -> None:
    site.record_submission("7")
    site.set_script(
        "squeue",
        f"if [ -e {site.notes}/up ]; then echo '7|COMPLETED|gpu1|None'; else touch {site.notes}/up; "
        "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1; fi",
    )
    assert site.call(program, *STATUS)[:2] == (0, "7|COMPLETED\n")
    assert not (site.notes / "outage-slurmctld.json").exists()


def test_an_outage_is_recorded_with_its_beginning(site: Site) -> None:
    site.record_submission("7")
    site.set_output("squeue", "", status=1, errors="slurm_load_jobs error: Unable to contact slurm controller")
    process = site.start("squeue", *STATUS)
    while not (site.notes / "outage-slurmctld.json").exists():
        time.sleep(0.05)
    process.kill()
    process.communicate()
    noted = json.loads((site.notes / "outage-slurmctld.json").read_text())
    assert noted["message"] == "slurm_load_jobs error: Unable to contact slurm controller"
    assert time.time() - noted["since"] < 30


def test_after_an_outage_that_is_too_long_no_state_is_printed_and_nothing_is_submitted(tmp_path: Path) -> None:
    site = Site(tmp_path, patience=0)
    site.record_submission("7")
    site.set_output("squeue", "", status=1, errors="Unable to contact slurm controller")
    site.set_output("sbatch", "7")
    began = time.monotonic()
    assert site.call("squeue", *STATUS)[:2] == (0, "")  # the executor keeps its jobs
    assert site.call("sbatch", *SUBMISSION)[0] == 1
    assert site.calls("sbatch") == []
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("in_accounts", "shown"),
    [
        ("7|COMPLETED|gpu1", "7|COMPLETED\n"),
        ("7|CANCELLED by 1000|gpu1", "7|CANCELLED\n"),
        ("7|FAILED|gpu1", "7|FAILED\n"),
    ],
)
def test_a_job_that_the_controller_has_forgotten_is_looked_up_in_the_accounting(
    in_accounts: str, shown: str, site: Site
) -> None:
    site.record_submission("7")
    site.set_output("squeue", "")
    site.set_output("sacct", in_accounts)
    assert site.call("squeue", *STATUS)[:2] == (0, shown)
    assert "--jobs=7" in site.calls("sacct")[0]


@pytest.mark.parametrize("accounts", [None, "Slurm accounting storage is disabled", "7|RUNNING|gpu1"])
def test_a_job_that_slurm_lists_nowhere_counts_as_completed(accounts: str | None, site: Site) -> None:
    site.record_submission("7", seconds_ago=1000)
    site.set_output("squeue", "")
    if accounts is not None:
        is_disabled = "disabled" in accounts
        site.set_output(
            "sacct", "" if is_disabled else accounts, status=int(is_disabled), errors=accounts if is_disabled else ""
        )
    assert site.call("squeue", *STATUS)[:2] == (0, "\n")
    for line in filter(None, (site.notes / "jobs.jsonl").read_text().splitlines()):
        facts = json.loads(line)
        if facts.get("state") == "missing":
            facts["since"] -= 1000  # it has been missing for a long time
            with (site.notes / "jobs.jsonl").open("a") as stream:
                stream.write(json.dumps(facts) + "\n")
    assert site.call("squeue", *STATUS)[:2] == (0, "7|COMPLETED\n")


def test_a_job_that_stays_preempted_has_failed(site: Site) -> None:
    site.record_submission("7", seconds_ago=1000)
    site.set_output("squeue", "7|PREEMPTED|gpu1|None")
    assert site.call("squeue", *STATUS)[1] == "7|RUNNING\n"
    with (site.notes / "jobs.jsonl").open("a") as stream:
        stream.write(json.dumps({"number": "7", "state": "PREEMPTED", "since": 0, "node": "gpu1"}) + "\n")
    assert site.call("squeue", *STATUS)[1] == "7|FAILED\n"


# Submissions


def test_a_job_is_named_by_its_rule_and_run_and_its_log_by_its_node(site: Site) -> None:
    site.set_output("sbatch", "7")
    assert site.call("sbatch", *SUBMISSION)[:2] == (0, "7\n")
    (call,) = site.calls("sbatch")
    mark = r"\[[0-9a-f]{8}\]"
    assert re.search(rf"--job-name unlearn core-forget06-0123456789ab ({mark}) --comment {COMMENT} \1 ", call)
    assert '--wrap=echo "Node: ${SLURMD_NODENAME:-$(hostname)}"; true' in call


def test_a_job_runs_in_the_container_in_which_snakemake_runs(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPTAINER_CONTAINER", "/images/core lib.sif")
    monkeypatch.setenv("APPTAINER_BIND", "/scratch,/etc/slurm")
    site.set_output("sbatch", "7")
    site.call("sbatch", *SUBMISSION[:-1], "--wrap=python -m snakemake 'a b'")
    (call,) = site.calls("sbatch")
    inside = """apptainer exec --nv --bind=/scratch --bind=/etc/slurm '/images/core lib.sif' sh -c"""
    assert call.endswith(f"{inside} 'python -m snakemake '\"'\"'a b'\"'\"''")


@pytest.mark.parametrize(
    "refusal",
    [
        "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates "
        "accounting/QOS policy (job submit limit, users size and/or time limits)",
        "sbatch: error: AssocMaxSubmitJobLimit",
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
    ],
)
def test_a_temporarily_refused_submission_is_repeated(refusal: str, site: Site) -> None:
    site.set_output("squeue", "")
    site.set_script(
        "sbatch",
        f"if [ -e {site.notes}/up ]; then echo 7; else touch {site.notes}/up; echo '{refusal}' >&2; exit 1; fi",
    )
    assert site.call("sbatch", *SUBMISSION)[:2] == (0, "7\n")
    assert len(site.calls("sbatch")) == 2


def test_a_permanently_refused_submission_fails_at_once(site: Site) -> None:
    site.set_output("sbatch", "", status=1, errors="sbatch: error: invalid partition specified: nope")
    assert site.call("sbatch", *SUBMISSION) == (1, "", "sbatch: error: invalid partition specified: nope\n")
    assert len(site.calls("sbatch")) == 1


def test_a_job_that_was_accepted_without_an_answer_is_not_submitted_twice(site: Site) -> None:
    site.set_script("sbatch", "echo 'Socket timed out on send/recv operation' >&2; exit 1")
    site.set_script("squeue", f"sed -n 's/.*--job-name \\(.*\\]\\) --comment.*/9|\\1|/p' {site.programs}/sbatch.calls")
    assert site.call("sbatch", *SUBMISSION)[:2] == (0, "9\n")
    assert len(site.calls("sbatch")) == 1


def test_at_most_two_jobs_are_submitted_in_a_second(site: Site) -> None:
    site.set_script("sbatch", f"date +%s.%N >> {site.notes}/times; echo 7")
    processes = [site.start("sbatch", *SUBMISSION) for _ in range(5)]
    for process in processes:
        assert process.communicate(timeout=60)[0] == "7\n"
    times = sorted(map(float, (site.notes / "times").read_text().split()))
    assert times[-1] - times[0] > 1.8  # five submissions have four pauses of half a second


def test_the_next_attempt_avoids_the_node_on_which_a_job_has_failed(site: Site) -> None:
    site.record_submission("7")
    site.set_output("squeue", "7|FAILED|gpu1|None")
    site.set_output("sbatch", "8")
    site.call("squeue", *STATUS)
    site.call("sbatch", *SUBMISSION)
    trial, submission = site.calls("sbatch")
    assert trial.startswith("--test-only --exclude=gpu1") and submission.startswith("--exclude=gpu1")
    other = [argument.replace("core-", "esd-") for argument in SUBMISSION]
    site.call("sbatch", *other)
    assert "--exclude" not in site.calls("sbatch")[2]


def test_a_node_on_which_two_runs_have_failed_is_avoided_by_all(site: Site) -> None:
    site.record_submission("7")
    site.record_submission("8", COMMENT.replace("core-", "esd-"))
    site.set_output("squeue", "7|FAILED|gpu1|None\n8|FAILED|gpu1|None")
    site.set_output("sbatch", "9")
    site.call("squeue", *STATUS)
    site.call("sbatch", *[argument.replace("core-", "salun-") for argument in SUBMISSION])
    assert "--exclude=gpu1" in site.calls("sbatch")[0]


@pytest.mark.parametrize("state", ["TIMEOUT", "CANCELLED", "OUT_OF_MEMORY"])
def test_a_node_that_is_not_to_blame_is_not_avoided(state: str, site: Site) -> None:
    site.record_submission("7")
    site.set_output("squeue", f"7|{state}|gpu1|None")
    site.set_output("sbatch", "8")
    site.call("squeue", *STATUS)
    site.call("sbatch", *SUBMISSION)
    assert "--exclude" not in site.calls("sbatch")[0]


def test_a_node_without_which_the_job_could_not_start_is_not_avoided(site: Site) -> None:
    site.record_submission("7")
    site.set_output("squeue", "7|FAILED|gpu1|None")
    site.set_script(
        "sbatch",
        "case $* in *--exclude*) echo 'Requested node configuration is not available' >&2; exit 1;; esac; echo 8",
    )
    site.call("squeue", *STATUS)
    assert site.call("sbatch", *SUBMISSION)[:2] == (0, "8\n")


def test_the_node_of_a_failure_is_remembered_after_slurm_has_forgotten_it(site: Site) -> None:
    site.record_submission("7")
    site.set_output("squeue", "7|FAILED|gpu1|None")
    site.call("squeue", *STATUS)
    site.set_output("squeue", "")
    site.set_output("sacct", "")
    assert site.call("squeue", *STATUS)[1] == "7|FAILED\n"
    assert site.calls("sacct") == []
    site.set_output("sbatch", "8")
    site.call("sbatch", *SUBMISSION)
    assert "--exclude=gpu1" in site.calls("sbatch")[-1]


# Other calls


def test_other_calls_are_passed_to_slurm_unchanged(site: Site) -> None:
    site.set_output("squeue", "7 core")
    assert site.call("squeue", "--me") == (0, "7 core\n", "\n")
    assert site.calls("squeue") == ["--me"]


def test_a_database_that_restarts_does_not_fail_the_check_of_the_account(site: Site) -> None:
    site.set_script(
        "sacctmgr",
        f"if [ -e {site.notes}/up ]; then echo mine; else touch {site.notes}/up; "
        "echo 'sacctmgr: error: Problem talking to the database: Connection refused' >&2; exit 1; fi",
    )
    assert site.call("sacctmgr", "-n", "-s", "list", "user", "me") == (0, "mine\n", "")


@pytest.mark.parametrize("banner", ["Note: 5% of your quota are left", "Welcome; to Slurm"])
def test_the_job_number_is_found_in_a_longer_output_of_sbatch(banner: str, site: Site) -> None:
    site.set_output("sbatch", f"{banner}\n4711;cluster")
    assert site.call("sbatch", *SUBMISSION)[:2] == (0, "4711\n")
    site.set_output("squeue", "4711|RUNNING|gpu1|None")
    assert site.call("squeue", *STATUS)[1] == "4711|RUNNING\n"


def test_the_users_own_columns_and_filters_do_not_reach_slurm(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQUEUE_PARTITION", "other")
    site.record_submission("7")
    site.set_script("squeue", 'echo "7|RUNNING|gpu1|$SQUEUE_PARTITION"; [ -z "$SQUEUE_PARTITION" ]')
    assert site.call("squeue", *STATUS)[:2] == (0, "7|RUNNING\n")
    assert "--all" in site.calls("squeue")[0]


def test_an_answer_of_one_daemon_does_not_end_the_outage_of_the_other(site: Site) -> None:
    site.record_submission("7")
    site.set_output("squeue", "7|RUNNING|gpu1|None")
    site.set_output("sacctmgr", "", status=1, errors="sacctmgr: error: slurm_persist_conn_open: Connection refused")
    process = site.start("sacctmgr", "-n")
    while not (site.notes / "outage-slurmdbd.json").exists():
        time.sleep(0.05)
    site.call("squeue", *STATUS)
    assert (site.notes / "outage-slurmdbd.json").exists()
    process.kill()
    process.communicate()


def test_nothing_is_submitted_after_snakemake_has_ended(tmp_path: Path) -> None:
    site = Site(tmp_path)
    ended = subprocess.Popen(["true"])
    ended.wait()
    (site.notes / "settings.json").write_text(json.dumps({"pause": 0.1, "snakemake": ended.pid}))
    site.set_output("sbatch", "7")
    assert site.call("sbatch", *SUBMISSION)[0] == 1 and site.calls("sbatch") == []


def test_notes_that_cannot_be_written_lose_no_job(site: Site) -> None:
    site.record_submission("7")
    (site.notes / "jobs.jsonl").open("a").write('{"number": "8", "sta')  # cut off by a full disk
    site.record_submission("9")
    site.set_output("squeue", "7|RUNNING|gpu1|None\n9|RUNNING|gpu1|None")
    site.set_script("sbatch", "echo 10")
    assert site.call("sbatch", *SUBMISSION)[:2] == (0, "10\n")
    assert [line.split("|")[0] for line in site.call("squeue", *STATUS)[1].splitlines()] == ["7", "9"]


def test_a_job_that_its_node_could_not_start_fails(site: Site) -> None:
    site.record_submission("7", seconds_ago=1000)
    site.set_output("squeue", "7|PENDING||launch failed requeued held")
    site.set_output("scancel", "")
    assert site.call("squeue", *STATUS)[1] == "7|PENDING\n"
    with (site.notes / "jobs.jsonl").open("a") as stream:
        stream.write(json.dumps({"number": "7", "state": "held", "since": 0, "node": ""}) + "\n")
    assert site.call("squeue", *STATUS)[1] == "7|FAILED\n"
    assert site.calls("scancel") == ["7"]


def test_the_hyphens_of_a_gpu_model_reach_slurm(site: Site) -> None:
    resources = SiteValues.of({"gpu_model": "nvidia_a100-sxm4-80gb"}).resources_of("fid")
    assert re.fullmatch(r"[a-zA-Z0-9_\.]+", str(resources["gpu_model"]))  # the form that the executor requires
    site.set_output("sbatch", "7")
    site.call("sbatch", *SUBMISSION, f"--gpus={resources['gpu_model']}:1")
    assert "--gpus=nvidia_a100-sxm4-80gb:1" in site.calls("sbatch")[0]


def test_a_missing_command_of_slurm_is_reported(site: Site) -> None:
    status, _, errors = site.call("sacct", "-X")
    assert status == 127 and "not found on PATH" in errors
