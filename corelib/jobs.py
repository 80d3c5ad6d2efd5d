"""The frame of every script: specification in, manifest and provenance out, and a log that can be found.

A job reads its specification and nothing else of the configuration. It refuses to work if the code or the packages
have changed since it was planned: its result would lie at an address that does not describe it.
"""

from __future__ import annotations

import errno
import importlib.metadata
import json
import logging
import os
import platform
import resource
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from corelib.addresses import RUNS, code_of, digest_of, packages_of
from corelib.artefacts import MANIFEST, read_json, read_manifest, write_json, write_manifest
from corelib.errors import ArtefactError, Interrupted, UserError
from corelib.settings.section import Section
from corelib.work import Outcome, Work

log = logging.getLogger(__name__)

Settings = TypeVar("Settings", bound=Section)

NO_ROOM = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
"""Faults of the place and not of the code."""

INTERRUPTED = 75
"""Exit status of a job that was asked to end and has saved its state (EX_TEMPFAIL: try again)."""


def run_job(snakemake: Any, stage: Callable[[Settings, Work], Outcome], settings: type[Settings]) -> None:
    """Run one stage for one Snakemake job.

    Args:
        snakemake: the object that Snakemake gives to scripts, with `params.specification` and `output.manifest`.
        stage: the function that does the work.
        settings: the type of what it reads.

    Exits with one sentence for a `UserError`, and with a traceback for anything else, both at the end of the job's log.
    """
    _mirror_output_in(Path(snakemake.log[0]))
    try:
        _work(snakemake, stage, settings)
    except Interrupted as interruption:
        log.warning("%s", interruption)
        sys.exit(INTERRUPTED)
    except UserError as error:
        log.error("Error: %s", error)
        sys.exit(1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            log.error("Error: %s: %s, expected a place with room to write.", error.filename, error.strerror)
            sys.exit(1)
        log.error("%s", traceback.format_exc())
        sys.exit(1)


def _work(snakemake: Any, stage: Callable[[Settings, Work], Outcome], settings: type[Settings]) -> None:
    began = time.monotonic()
    specification = read_json(Path(snakemake.params.specification))
    _check_that_it_is_still_meant(Path(snakemake.params.specification), specification, Path(snakemake.scriptdir))
    inputs = {role: read_manifest(RUNS / name / MANIFEST) for role, name in specification["builds_on"].items()}
    manifest = Path(snakemake.output.manifest)
    work = Work(
        folder=Path(snakemake.params.get("folder", manifest.parent)),
        digest=specification["digest"],
        inputs=inputs,
        threads=specification["threads"],
        checkpoint_seconds=specification["execution"]["checkpoint_seconds"],
    )
    log.info("%s %s on %s", specification["stage"], specification["slug"], platform.node())
    outcome = stage(settings.model_validate_json(json.dumps(specification["settings"])), work)
    write_json(manifest.with_suffix(".provenance.json"), _provenance(specification, began))
    write_manifest(manifest, work.folder, specification["stage"], work.digest, outcome.files, outcome.facts)
    work.checkpoint.unlink(missing_ok=True)
    log.info("done in %.1f s", time.monotonic() - began)


def _mirror_output_in(path: Path) -> None:
    """Send everything this process prints, warnings of libraries included, to the job's log, and to nowhere else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = path.open("a", buffering=1, encoding="utf-8")
    os.dup2(stream.fileno(), sys.stdout.fileno())
    os.dup2(stream.fileno(), sys.stderr.fileno())
    logging.basicConfig(
        level=logging.INFO, stream=stream, format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S", force=True
    )


def _check_that_it_is_still_meant(path: Path, specification: dict[str, Any], scripts: Path) -> None:
    """Raise `ArtefactError` if the specification is damaged or describes other code than what would run now."""
    if digest_of(specification) != specification["digest"]:
        raise ArtefactError(f"{path}: its content does not have its digest; delete it and ask for the target again.")
    script = scripts.resolve() / next(name for name in specification["code"] if name.endswith(".py"))
    for kind, planned, now in (
        ("module", specification["code"], code_of(script)),
        ("package", specification["packages"], packages_of(script)),
    ):
        if differing := sorted(name for name in planned.keys() | now.keys() if planned.get(name) != now.get(name)):
            raise ArtefactError(
                f"{path}: {kind} {differing[0]} has changed since this run was planned, expected the same code; "
                "ask for the target again to plan it anew."
            )


def _provenance(specification: dict[str, Any], began: float) -> dict[str, Any]:
    """Who made the artefact, where, from what, and at what cost."""
    return {
        "specification": specification,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in specification["packages"]},
        "host": platform.node(),
        "machine": platform.machine(),
        "device": _device(),
        "threads": specification["threads"],
        "scheduler_job": os.environ.get("SLURM_JOB_ID"),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "wall_seconds": round(time.monotonic() - began, 3),
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
