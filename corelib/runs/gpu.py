"""One GPU for each job on a workstation with several GPUs.

A scheduler assigns a GPU to each job. Without a scheduler, all jobs would compute on the first GPU. Here each job locks
one of the machine's GPUs while its process lives, and sees only that GPU. The kernel releases the lock when the process
ends, for whatever reason.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import math
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from corelib.errors import DeviceError

log = logging.getLogger(__name__)

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"

QUERY_TIMEOUT = 60
"""Timeout for a query to the driver, in seconds."""

MIN_DRIVER = {"13": 580, "12": 525}
"""The oldest NVIDIA driver for Linux that supports a major version of CUDA, by that version."""

SCHEDULER_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID", "FLUX_JOB_ID")
"""Variables that Slurm, PBS, LSF, Grid Engine and Flux set in their jobs."""


@contextmanager
def one_gpu(locks: Path | None = None, seconds_between_looks: float = 2.0) -> Iterator[None]:
    """Make one GPU visible to this process while the block runs, one that no other job of this user has.

    Waits until a GPU is free. Does nothing if there is no choice: if `CUDA_VISIBLE_DEVICES` names at most one GPU, as
    in a scheduler's job with one GPU, or if the machine has no NVIDIA GPU. If it names several, as in an allocation of
    several GPUs in which Snakemake itself runs, this takes one of those.

    Args:
        locks: folder of the lock files; by default one on this machine.
        seconds_between_looks: polling interval while all GPUs are taken, in seconds.
    """
    candidates = _candidates()
    if not candidates:
        yield
        return
    locks = locks or _default_lock_folder()
    locks.mkdir(mode=0o700, exist_ok=True)
    previous = os.environ.get(VISIBLE_DEVICES)
    if (locked := _lock_one(candidates, locks)) is None:
        log.info("all %d GPUs are taken; waiting for one", len(candidates))
    while locked is None:
        time.sleep(seconds_between_looks)
        locked = _lock_one(candidates, locks)
    name, lock = locked
    with lock:
        os.environ[VISIBLE_DEVICES] = name
        try:
            yield
        finally:
            if previous is None:
                del os.environ[VISIBLE_DEVICES]
            else:
                os.environ[VISIBLE_DEVICES] = previous


def check_assigned_gpu() -> None:
    """Raise `DeviceError` if a scheduler has assigned a GPU to this job that torch cannot use.

    The job would otherwise compute on the CPU, in the CPU's precision and at its speed, and its result would pass for
    that of a GPU. Without a scheduler, all jobs of the machine use the CPU, and each logs a warning.
    """
    assigned = os.environ.get(VISIBLE_DEVICES, "").strip()
    is_scheduled = any(name in os.environ for name in SCHEDULER_VARIABLES)
    has_gpu = bool(assigned) if is_scheduled else assigned or VISIBLE_DEVICES not in os.environ
    if not has_gpu or assigned in ("-1", "NoDevFiles") or not _has_nvidia():
        return
    import torch

    if torch.cuda.is_available():
        return
    advice = driver_advice(torch.version.cuda) or "see docs/environment.md for the driver"
    if is_scheduled:
        raise DeviceError(
            f"{VISIBLE_DEVICES} is {assigned!r} on {platform.node()}, but torch {torch.__version__} cannot use a "
            f"GPU there, expected the GPU assigned to the job; {advice}, or exclude the node."
        )
    log.warning("torch %s cannot use a GPU here and computes on the CPU; %s", torch.__version__, advice)


def driver_advice(cuda: str | None) -> str | None:
    """Advice on an NVIDIA driver that is too old for a version of CUDA; None if it is new enough or unknown."""
    required = MIN_DRIVER.get((cuda or "").split(".")[0])
    installed = driver_version()
    if required is None or installed is None or int(installed.split(".")[0]) >= required:
        return None
    advice = f"the NVIDIA driver is {installed}, but CUDA {cuda} needs {required} or newer"
    return f"{advice}: make env CUDA=12" if int(installed.split(".")[0]) >= MIN_DRIVER["12"] else advice


def driver_version() -> str | None:
    """The version of this machine's NVIDIA driver; None if there is none or it does not respond."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        words = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=QUERY_TIMEOUT
        ).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return words[0] if words and words[0][0].isdigit() else None


def _has_nvidia() -> bool:
    return shutil.which("nvidia-smi") is not None or any(Path("/dev").glob("nvidia[0-9]*"))


def _default_lock_folder() -> Path:
    """The folder of lock files that all jobs of this user share on this machine or, in an allocation, within it.

    An allocation has a folder of its own because it may number its GPUs from 0.
    """
    allocation = next((f"-{os.environ[name]}" for name in SCHEDULER_VARIABLES if name in os.environ), "")
    return Path("/tmp") / f"corelib-gpus-{os.getuid()}{allocation}"


def _candidates() -> list[str]:
    """The GPUs among which this process must choose itself; empty if there is no choice."""
    if VISIBLE_DEVICES in os.environ:
        devices = _parse_visible(os.environ[VISIBLE_DEVICES])
        return devices if len(devices) > 1 else []
    if any(name in os.environ for name in SCHEDULER_VARIABLES):  # the visible GPUs may belong to other jobs
        return []
    return list_gpus()


def max_jobs_on_gpus() -> int | None:
    """Maximum number of concurrent jobs with a GPU: one on each visible GPU. None if there is no GPU."""
    devices = _parse_visible(os.environ[VISIBLE_DEVICES]) if VISIBLE_DEVICES in os.environ else list_gpus()
    return len(devices) if devices and _has_nvidia() else None


def _parse_visible(value: str) -> list[str]:
    """The devices in a value of `CUDA_VISIBLE_DEVICES`: those before the first invalid name, such as -1, as in CUDA."""
    names = [name.strip() for name in value.split(",")]
    count = len(_query_gpus()) or math.inf

    def exists(name: str) -> bool:
        return int(name) < count if name.isdecimal() else name.startswith(("GPU-", "MIG-"))

    return list(dict.fromkeys(itertools.takewhile(exists, names)))


def list_gpus() -> list[str]:
    """The UUIDs of this machine's NVIDIA GPUs, in the driver's order; empty if the driver does not respond.

    A GPU that is partitioned into MIG instances is replaced by them: a process can use only one instance at a time.
    """
    return [name for gpu, *instances in _query_gpus() for name in instances or [gpu]]


def _query_gpus() -> list[list[str]]:
    """For each GPU of this machine, its UUID followed by those of its MIG instances."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--list-gpus"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=QUERY_TIMEOUT)
    except subprocess.TimeoutExpired:
        log.warning("nvidia-smi has not responded within %d s: no GPU is chosen, and jobs may share one", QUERY_TIMEOUT)
        return []
    gpus: list[list[str]] = []
    for line in answer.stdout.splitlines() if answer.returncode == 0 else []:
        uuid = re.search(r"\(UUID: ([^)]+)\)", line)
        if uuid and line.lstrip().startswith("MIG") and gpus:
            gpus[-1].append(uuid[1])
        elif uuid:
            gpus.append([uuid[1]])
    return gpus


def _lock_one(candidates: list[str], locks: Path) -> tuple[str, IO[bytes]] | None:
    """Lock the first free GPU; its name and the open lock file, or None if all are taken."""
    for name in candidates:
        stream = (locks / f"{name.replace('/', '-')}.lock").open("ab")  # names of older drivers: MIG-GPU-.../7/0
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
        else:
            return name, stream
    return None
