"""One GPU for each job on a workstation that has several.

A scheduler gives each job its own; without one, all jobs would compute on the first. Here a job locks one of the
machine's GPUs for as long as its process lives, and sees only that one. The kernel frees the lock however it ends.
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

CHOSEN = "CUDA_VISIBLE_DEVICES"

PATIENCE = 60
"""Seconds until an answer of the driver is given up."""

OLDEST_DRIVER = {"13": 580, "12": 525}
"""By the version of CUDA: the oldest NVIDIA driver for Linux with which its libraries work."""

SCHEDULERS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID", "FLUX_JOB_ID")
"""Set by Slurm, PBS, LSF, Grid Engine and Flux in the jobs that they start."""


@contextmanager
def one_gpu(locks: Path | None = None, seconds_between_looks: float = 2.0) -> Iterator[None]:
    """Let this process see one GPU that no other job of this user has, while the block runs; wait until there is one.

    Does nothing where there is nothing to choose: where `CUDA_VISIBLE_DEVICES` names one GPU or none, as it does in a
    scheduler's job with one GPU, and on a machine without NVIDIA GPUs. Where it names several, as in an allocation of
    several GPUs in which Snakemake itself runs, one of those is taken.

    Args:
        locks: where lock files lie; by default in a folder of the machine.
        seconds_between_looks: while all GPUs are taken.
    """
    choice = _choice()
    if not choice:
        yield
        return
    locks = locks or _locks_of_this_machine()
    locks.mkdir(mode=0o700, exist_ok=True)
    before = os.environ.get(CHOSEN)
    if (taken := _lock_one(choice, locks)) is None:
        log.info("all of %d GPUs are taken; waiting for one", len(choice))
    while taken is None:
        time.sleep(seconds_between_looks)
        taken = _lock_one(choice, locks)
    name, lock = taken
    with lock:
        os.environ[CHOSEN] = name
        try:
            yield
        finally:
            if before is None:
                del os.environ[CHOSEN]
            else:
                os.environ[CHOSEN] = before


def check_that_it_computes() -> None:
    """Raise `DeviceError` in a scheduler's job that was given a GPU which torch cannot use.

    Computed on the CPU, in the CPU's precision and at its speed, its result would be taken for that of a GPU. Without a
    scheduler, all jobs of the machine use the CPU alike, and their logs say so.
    """
    given = os.environ.get(CHOSEN, "").strip()
    is_scheduled = any(name in os.environ for name in SCHEDULERS)
    is_given_one = bool(given) if is_scheduled else given or CHOSEN not in os.environ
    if not is_given_one or given in ("-1", "NoDevFiles") or not _has_nvidia():
        return
    import torch

    if torch.cuda.is_available():
        return
    advice = advice_for_driver(torch.version.cuda) or "see docs/environment.md for the driver"
    if is_scheduled:
        raise DeviceError(
            f"{CHOSEN} is {given!r} on {platform.node()}, and torch {torch.__version__} can use no GPU there, expected "
            f"the one that the job was given; {advice}, or exclude the node."
        )
    log.warning("torch %s can use no GPU here, and computes on the CPU; %s", torch.__version__, advice)


def advice_for_driver(cuda: str | None) -> str | None:
    """What to do about this machine's NVIDIA driver, in words; None if it is new enough for a version of CUDA."""
    needed = OLDEST_DRIVER.get((cuda or "").split(".")[0])
    found = driver()
    if needed is None or found is None or int(found.split(".")[0]) >= needed:
        return None
    advice = f"the NVIDIA driver is {found}, and CUDA {cuda} needs {needed} or newer"
    return f"{advice}: make env CUDA=12" if int(found.split(".")[0]) >= OLDEST_DRIVER["12"] else advice


def driver() -> str | None:
    """The version of this machine's NVIDIA driver; None if it has none, or none that answers."""
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return said[0] if said and said[0][0].isdigit() else None


def _has_nvidia() -> bool:
    return shutil.which("nvidia-smi") is not None or any(Path("/dev").glob("nvidia[0-9]*"))


def _locks_of_this_machine() -> Path:
    """The same for all jobs of this user on this machine, or in this allocation, which may number its GPUs anew."""
    allocation = next((f"-{os.environ[name]}" for name in SCHEDULERS if name in os.environ), "")
    return Path("/tmp") / f"corelib-gpus-{os.getuid()}{allocation}"


def _choice() -> list[str]:
    """The GPUs among which this process has to choose for itself; empty if it has not."""
    if CHOSEN in os.environ:
        named = _named(os.environ[CHOSEN])
        return named if len(named) > 1 else []
    if any(name in os.environ for name in SCHEDULERS):  # what is to be seen there belongs to others as well
        return []
    return gpus_of_this_machine()


def max_jobs_on_gpus() -> int | None:
    """How many jobs with a GPU can run here at a time, one on each that CUDA shows; None where there is no GPU."""
    found = _named(os.environ[CHOSEN]) if CHOSEN in os.environ else gpus_of_this_machine()
    return len(found) if found and _has_nvidia() else None


def _named(value: str) -> list[str]:
    """The devices that a value of `CUDA_VISIBLE_DEVICES` names: CUDA reads to the first that is none, such as -1."""
    names = [name.strip() for name in value.split(",")]
    count = len(_listed()) or math.inf

    def is_there(name: str) -> bool:
        return int(name) < count if name.isdecimal() else name.startswith(("GPU-", "MIG-"))

    return list(dict.fromkeys(itertools.takewhile(is_there, names)))


def gpus_of_this_machine() -> list[str]:
    """The identities of this machine's NVIDIA GPUs, in the driver's order; none where the driver does not answer.

    A GPU that is cut into MIG instances counts by those: CUDA shows a process one of them at a time.
    """
    return [name for gpu, *instances in _listed() for name in instances or [gpu]]


def _listed() -> list[list[str]]:
    """The identity of each GPU of this machine, and those of its MIG instances behind it."""
    if shutil.which("nvidia-smi") is None:
        return []
    asked = ["nvidia-smi", "--list-gpus"]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        log.warning("nvidia-smi has not answered in %d seconds: no GPU is chosen, and jobs may share one", PATIENCE)
        return []
    found: list[list[str]] = []
    for line in answer.stdout.splitlines() if answer.returncode == 0 else []:
        uuid = re.search(r"\(UUID: ([^)]+)\)", line)
        if uuid and line.lstrip().startswith("MIG") and found:
            found[-1].append(uuid[1])
        elif uuid:
            found.append([uuid[1]])
    return found


def _lock_one(choice: list[str], locks: Path) -> tuple[str, IO[bytes]] | None:
    for name in choice:
        stream = (locks / f"{name.replace('/', '-')}.lock").open("ab")  # older drivers: MIG-GPU-.../7/0
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
        else:
            return name, stream
    return None
