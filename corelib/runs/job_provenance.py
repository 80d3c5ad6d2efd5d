"""The records that a job writes about itself: earlier attempts, code, packages, device, time and memory."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from corelib.errors import ArtefactError
from corelib.files.json_files import read_json, write_json
from corelib.runs.environment import recorded_variables
from corelib.runs.gpu import VISIBLE_DEVICES
from corelib.runs.manifest import ManifestRecord
from corelib.runs.provenance_record import Attempt, Machine, Provenance
from corelib.runs.specification import Specification
from corelib.runs.stage_context import StageContext
from corelib.version import VERSION

ATTEMPTS_SUFFIX = ".attempts.json"
"""Suffix of the file with the attempts at an incomplete run, in place of a manifest's `.json`."""


class Attempts(BaseModel):
    """The attempts at an incomplete run.

    Attributes:
        owner: identifies the run and the models that it builds on (`StageContext.owner`).
        attempts: the attempts, oldest first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    owner: str
    attempts: list[Attempt]


def record_attempt(manifest: Path, context: StageContext, began: datetime) -> list[Attempt]:
    """Record this attempt at a run, and return all attempts so far, this one last.

    They are recorded because an interrupted attempt may have used another device. The file is beside the manifest until
    the manifest is written. The time at which an attempt was killed is unknown; the time of its last checkpoint is
    recorded instead. A file that is missing, malformed or of another run counts as empty.
    """
    path = manifest.with_suffix(ATTEMPTS_SUFFIX)
    try:
        earlier = Attempts.model_validate(read_json(path))
        attempts = list(earlier.attempts) if earlier.owner == context.owner else []
    except (ArtefactError, ValidationError):
        attempts = []
    if attempts and context.checkpoint.exists():
        saved = datetime.fromtimestamp(context.checkpoint.stat().st_mtime).astimezone()
        attempts[-1] = attempts[-1].model_copy(update={"saved": saved.isoformat(timespec="milliseconds")})
    attempts.append(Attempt.model_validate(_machine(began).model_dump()))
    write_json(path, Attempts(owner=context.owner, attempts=attempts).model_dump(exclude_unset=True))
    return attempts


def _machine(began: datetime) -> Machine:
    """The machine, device and job of this process, and when it began."""
    return Machine(
        began=began.isoformat(timespec="milliseconds"),
        host=platform.node(),
        node=os.environ.get("SLURMD_NODENAME"),
        scheduler_job=os.environ.get("SLURM_JOB_ID"),
        device=_device(),
        processor=_processor(),
    )


def device_description() -> str:
    """The device and the value of `CUDA_VISIBLE_DEVICES`, for the log."""
    visible = os.environ.get(VISIBLE_DEVICES)
    return _device() if visible is None else f"{_device()} ({VISIBLE_DEVICES}={visible})"


def build_provenance(
    specification: Specification,
    manifest: ManifestRecord,
    began: datetime,
    seconds: float,
    records: Mapping[str, str],
    earlier_attempts: Sequence[Attempt],
    log: Sequence[str],
) -> Provenance:
    """The provenance record of the job that has just written the files of a manifest.

    Args:
        specification, manifest: of the run.
        began: when the job began.
        seconds: duration by a monotonic clock.
        records: sha256 of each file of the stage that describes the computation, not the result, by its path.
        earlier_attempts: the interrupted attempts.
        log: lines of the job's log.
    """
    return Provenance.sealed(
        specification=specification,
        manifest=manifest,
        version=VERSION,
        commit=_commit(),
        python=platform.python_version(),
        packages={name: importlib.metadata.version(name) for name in specification.packages},
        **_machine(began).model_dump(),
        machine=platform.machine(),
        visible_devices=os.environ.get(VISIBLE_DEVICES),
        arithmetic=_arithmetic(),
        threads=specification.threads,
        finished=datetime.now().astimezone().isoformat(timespec="milliseconds"),
        wall_seconds=round(seconds, 3),
        peak_memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        records=dict(records),
        earlier_attempts=list(earlier_attempts),
        log=list(log),
    )


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
    """The model of the CPU, on which the rounding of sums depends."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _arithmetic() -> dict[str, Any]:
    """Other influences on rounding: CPU kernels, versions of CUDA libraries, and the variables that libraries read."""
    influences: dict[str, Any] = {**recorded_variables(os.environ)}
    if "torch" in sys.modules:
        import torch

        influences["cpu_kernels"] = torch.backends.cpu.get_cpu_capability()
        if torch.cuda.is_available():
            influences |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return influences
