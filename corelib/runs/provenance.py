"""The provenance record of a job: code, packages, device, time and memory."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from corelib.errors import ArtefactError
from corelib.files.json_files import read_json, write_json
from corelib.runs.environment import recorded
from corelib.runs.gpu import CHOSEN
from corelib.runs.stage import Work

ATTEMPTS = ".attempts.json"
"""Instead of a manifest's `.json`: who has worked at a run that is not complete."""


def attempts_at(manifest: Path, work: Work, began: datetime) -> list[dict[str, Any]]:
    """The attempts at a run so far, this one the last: what was interrupted may have computed on other devices.

    They lie beside the manifest until it is written. When an attempt was killed is not known, but when it saved its
    checkpoint last.
    """
    path = manifest.with_suffix(ATTEMPTS)
    try:
        earlier = read_json(path)
        attempts = list(earlier["attempts"]) if earlier["owner"] == work.owner else []
        if attempts and work.checkpoint.exists():
            saved = datetime.fromtimestamp(work.checkpoint.stat().st_mtime).astimezone()
            attempts[-1]["saved"] = saved.isoformat(timespec="milliseconds")
    except (ArtefactError, KeyError, TypeError):
        attempts = []
    attempts.append(_attempt(began))
    write_json(path, {"owner": work.owner, "attempts": attempts})
    return attempts


def _attempt(began: datetime) -> dict[str, Any]:
    """Who works at a run, where, on what, and since when."""
    return {
        "began": began.isoformat(timespec="milliseconds"),
        "host": platform.node(),
        "node": os.environ.get("SLURMD_NODENAME"),
        "scheduler_job": os.environ.get("SLURM_JOB_ID"),
        "device": _device(),
        "processor": _processor(),
    }


def device_in_words() -> str:
    """The device and the value of `CUDA_VISIBLE_DEVICES`, for the log."""
    seen = os.environ.get(CHOSEN)
    return _device() if seen is None else f"{_device()} ({CHOSEN}={seen})"


def provenance_of(
    specification: dict[str, Any], made: dict[str, Any], began: datetime, seconds: float
) -> dict[str, Any]:
    """Who made the artefact, where, from what, and at what cost; and its manifest once more."""
    finished = datetime.now().astimezone()
    return {
        "specification": specification,
        "manifest": made,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in specification["packages"]},
        **_attempt(began),
        "machine": platform.machine(),
        "visible_devices": os.environ.get(CHOSEN),
        "arithmetic": _arithmetic(),
        "threads": specification["threads"],
        "finished": finished.isoformat(timespec="milliseconds"),
        "wall_seconds": round(seconds, 3),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _commit() -> str | None:
    """The commit of the code, with `+` if the working tree differs from it; None outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        described = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


def _device() -> str:
    if "torch" not in sys.modules:
        return "cpu"
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _processor() -> str:
    """The model of the CPU: sums are rounded in another way on another one."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _arithmetic() -> dict[str, Any]:
    """What else decides how numbers are rounded: kernels, libraries, and variables that these heed by themselves."""
    found: dict[str, Any] = {**recorded(os.environ)}
    if "torch" in sys.modules:
        import torch

        found["cpu_kernels"] = torch.backends.cpu.get_cpu_capability()
        if torch.cuda.is_available():
            found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return found
