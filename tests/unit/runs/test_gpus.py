"""On a workstation with several GPUs, every job has its own GPU; a scheduler's choice is not changed."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.checkout import REPOSITORY

from corelib.errors import DeviceError
from corelib.runs import gpu as gpus
from corelib.runs.gpu import (
    SCHEDULER_VARIABLES,
    VISIBLE_DEVICES,
    check_assigned_gpu,
    list_gpus,
    max_jobs_on_gpus,
    one_gpu,
)

JOB = """
import os, sys, time
from pathlib import Path
from corelib.runs.gpu import one_gpu
with one_gpu(Path(sys.argv[1]), seconds_between_looks=0.05):
    print(os.environ["CUDA_VISIBLE_DEVICES"], time.monotonic(), flush=True)
    time.sleep(float(sys.argv[2]))
    print(time.monotonic())
"""


@pytest.fixture(autouse=True)
def no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VISIBLE_DEVICES, *SCHEDULER_VARIABLES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def three_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose driver lists three GPUs."""
    program = tmp_path / "bin/nvidia-smi"
    program.parent.mkdir()
    listing = "".join(f"GPU {place}: NVIDIA A100 (UUID: GPU-{name})\n" for place, name in enumerate("abc"))
    program.write_text(f"#!/bin/sh\ncat <<END\n{listing}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def job(locks: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", JOB, str(locks), str(seconds)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


@pytest.mark.usefixtures("three_gpus")
def test_seven_jobs_on_three_gpus_never_share_one(tmp_path: Path) -> None:
    jobs = [job(tmp_path / "locks", 0.4) for _ in range(7)]
    spans: dict[str, list[tuple[float, float]]] = {}
    for process in jobs:
        output = process.communicate(timeout=60)[0].split()
        spans.setdefault(output[0], []).append((float(output[1]), float(output[2])))
    assert spans.keys() <= {"GPU-a", "GPU-b", "GPU-c"}
    for used in spans.values():
        used.sort()
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(used))


@pytest.mark.usefixtures("three_gpus")
def test_the_gpu_of_a_killed_job_is_free_at_once(tmp_path: Path) -> None:
    jobs = [job(tmp_path / "locks", 60) for _ in range(3)]
    for process in jobs:
        assert process.stdout is not None
        process.stdout.readline()
    for process in jobs:
        process.kill()
        process.wait()
    began = time.monotonic()
    with one_gpu(tmp_path / "locks"):
        assert time.monotonic() - began < 1


def test_one_of_several_visible_gpus_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE_DEVICES, "2,5")
    with one_gpu(tmp_path / "locks"):
        assert os.environ[VISIBLE_DEVICES] == "2"
        output = job(tmp_path / "locks", 0).communicate(timeout=60)[0]  # it sees only this GPU, which is taken here
        assert output.split()[0] == "2"
    assert os.environ[VISIBLE_DEVICES] == "2,5"


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize("chosen", ["0", "GPU-c", ""])
def test_the_users_choice_of_one_gpu_or_none_is_kept(
    chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE_DEVICES, chosen)
    with one_gpu(tmp_path / "locks"), one_gpu(tmp_path / "locks"):
        assert os.environ[VISIBLE_DEVICES] == chosen
    assert not (tmp_path / "locks").exists()


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize("scheduler", SCHEDULER_VARIABLES)
def test_the_choice_of_a_scheduler_is_kept(scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(scheduler, "7")
    with one_gpu(tmp_path / "locks"):
        assert VISIBLE_DEVICES not in os.environ
    monkeypatch.setenv(VISIBLE_DEVICES, "1")
    with one_gpu(tmp_path / "locks"):
        assert os.environ[VISIBLE_DEVICES] == "1"
    assert not (tmp_path / "locks").exists()


def test_in_an_allocation_of_several_gpus_each_job_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv(VISIBLE_DEVICES, "0,1")
    jobs = [job(tmp_path / "locks", 1) for _ in range(2)]
    assert {process.communicate(timeout=60)[0].split()[0] for process in jobs} == {"0", "1"}


LISTING_WITH_MIG = """\
GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-aaaa)
  MIG 3g.40gb     Device  0: (UUID: MIG-1111)
  MIG 3g.40gb     Device  1: (UUID: MIG-GPU-aaaa/2/0)
GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-bbbb)
"""


def install_driver(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<END\n{text}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_mig_instances_replace_their_gpu_and_each_job_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_driver(LISTING_WITH_MIG, tmp_path, monkeypatch)
    assert list_gpus() == ["MIG-1111", "MIG-GPU-aaaa/2/0", "GPU-bbbb"]
    assert max_jobs_on_gpus() == 3
    jobs = [job(tmp_path / "locks", 1) for _ in range(3)]
    assert {process.communicate(timeout=60)[0].split()[0] for process in jobs} == set(list_gpus())


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("0,-1,1", ["0"]),
        ("-1", []),
        ("", []),
        ("1,0", ["1", "0"]),
        ("1, 0,1", ["1", "0"]),
        ("0,1,2,3", ["0", "1"]),  # the machine has two
        ("0,none,1", ["0"]),
        ("GPU-bbbb,MIG-1111", ["GPU-bbbb", "MIG-1111"]),
    ],
)
def test_devices_after_the_first_invalid_name_are_ignored_as_in_cuda(
    value: str, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_driver(LISTING_WITH_MIG, tmp_path, monkeypatch)
    monkeypatch.setenv(VISIBLE_DEVICES, value)
    assert max_jobs_on_gpus() == (len(names) or None)
    jobs = [job(tmp_path / "locks", 1) for _ in range(2)]
    seen = {process.communicate(timeout=60)[0].rsplit("\n", 2)[0].rsplit(" ", 1)[0] for process in jobs}
    assert seen == (set(names[:2]) if len(names) > 1 else {value})


def test_on_a_machine_without_gpus_none_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list_gpus() == []
    with one_gpu(tmp_path / "locks"):
        assert VISIBLE_DEVICES not in os.environ


def test_with_a_driver_that_does_not_respond_no_gpu_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(gpus, "QUERY_TIMEOUT", 0.2)
    assert list_gpus() == []
    assert "nvidia-smi has not responded" in caplog.text


def test_importing_a_stage_does_not_start_cuda() -> None:
    """CUDA reads `CUDA_VISIBLE_DEVICES` once, at its initialisation; a job chooses its GPU after its imports."""
    scripts = sorted((REPOSITORY / "workflow_scripts").glob("*.py"))
    modules = {
        name for script in scripts for name in re.findall(r"^from (corelib\S*) import", script.read_text(), re.M)
    }
    probe = """
import sys
import torch
import corelib.workflow.catalogue
from pathlib import Path

corelib.workflow.catalogue._prepare_environment(Path.cwd())  # as in the Snakefile, whose environment scripts inherit
def started(*_):
    raise AssertionError("CUDA is started")
torch._C._cuda_getDeviceCount = started
torch.cuda._device_count_nvml = lambda: 4  # where there are GPUs, the driver's own library counts them
for name in sys.argv[1:]:
    __import__(name)
assert not torch.cuda.is_initialized()
"""
    done = subprocess.run(
        [sys.executable, "-c", probe, *sorted(modules)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("given", "scheduled", "has_nvidia", "refused"),
    [
        ("0", True, True, True),
        ("0", False, True, False),
        ("", True, True, False),
        ("0", True, False, False),
    ],
)
def test_a_job_that_was_given_a_gpu_does_not_compute_on_the_cpu_instead(
    given: str, scheduled: bool, has_nvidia: bool, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU has another precision, which is not part of the address of the result."""
    monkeypatch.setenv(VISIBLE_DEVICES, given)
    if scheduled:
        monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(gpus, "_has_nvidia", lambda: has_nvidia)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    if refused:
        with pytest.raises(DeviceError, match=r"CUDA_VISIBLE_DEVICES is '0' .* cannot use a GPU there"):
            check_assigned_gpu()
    else:
        check_assigned_gpu()
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    check_assigned_gpu()


@pytest.mark.parametrize(("given", "warns"), [(None, True), ("0", True), ("", False), ("-1", False)])
def test_a_workstation_warns_about_an_unused_gpu_unless_it_is_hidden(
    given: str | None, warns: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if given is not None:
        monkeypatch.setenv(VISIBLE_DEVICES, given)
    monkeypatch.setattr(gpus, "_has_nvidia", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    check_assigned_gpu()
    assert bool(caplog.records) == warns
