"""Job runner: reads the specification, runs the stage, writes manifest, provenance record and log.

A job reads its specification and nothing else of the configuration. It refuses to run if the code or the packages have
changed since it was planned: its address would not describe its result.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import platform
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

from corelib.errors import TERMINATION_SIGNALS, ArtefactError, Interrupted, UserError
from corelib.files.atomic import FILE_SYSTEM_ERRORS
from corelib.files.hashing import sha256_of_path
from corelib.files.paths import path_inside
from corelib.files.sealed_json import write_record
from corelib.runs.environment import check_variables
from corelib.runs.fingerprint import code_digests, package_versions
from corelib.runs.gpu import check_assigned_gpu, one_gpu
from corelib.runs.input_runs import read_inputs, trained_behind
from corelib.runs.job_log import JobLog, earlier_log, log_lines
from corelib.runs.job_provenance import ATTEMPTS_SUFFIX, build_provenance, device_description, record_attempt
from corelib.runs.layout import MANIFEST, RESULTS, SPECIFICATION
from corelib.runs.lease import Lease
from corelib.runs.manifest import manifest_content, matches_files
from corelib.runs.memory import keep_freed_memory
from corelib.runs.packages import check_packages
from corelib.runs.provenance_record import Provenance, provenance_path, read_provenance
from corelib.runs.requests import check_still_wanted
from corelib.runs.specification import Specification, read_specification
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.section import Section

log = logging.getLogger(__name__)

Settings = TypeVar("Settings", bound=Section)

INTERRUPTED_STATUS = 75
"""Exit status of a job that has received a termination signal and saved its state (EX_TEMPFAIL: try again)."""


def run_job(snakemake: Any, stage: Callable[[Settings, StageContext], StageResult], settings: type[Settings]) -> None:
    """Run one stage for one Snakemake job.

    Args:
        snakemake: the object that Snakemake passes to scripts, with `params.specification` and `output.manifest`.
        stage: the function of the stage.
        settings: the type of its settings.

    On a `UserError`, the process exits with one sentence at the end of the job's log; on any other exception, with a
    traceback there. On a termination signal, it saves its state if the stage has one, leaves no partial file, and exits
    with status `INTERRUPTED_STATUS`.
    """
    keep_freed_memory()  # first, as it holds for the blocks that are freed from now on
    try:
        logging.basicConfig(level=logging.INFO, handlers=[JobLog(Path(snakemake.log[0]))], force=True)
    except OSError as error:
        print(f"Error: {error.filename}: cannot open the job's log ({error.strerror}).", file=sys.stderr)
        sys.exit(1)
    for number in TERMINATION_SIGNALS:
        signal.signal(number, _interrupt)
    try:
        _run_with_lease(snakemake, stage, settings)
    except Interrupted as interruption:
        log.warning("%s", interruption)
        sys.exit(INTERRUPTED_STATUS)
    except UserError as error:
        log.error("Error: %s", error)
        sys.exit(1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FILE_SYSTEM_ERRORS:
            path = error.filename or snakemake.output.manifest
            log.error("Error: %s: %s; free space or correct the permissions.", path, error.strerror)
            sys.exit(1)
        log.error("%s", traceback.format_exc())
        sys.exit(1)


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted(f"received {signal.Signals(number).name}; complete files are kept")


def _run_with_lease(
    snakemake: Any, stage: Callable[[Settings, StageContext], StageResult], settings: type[Settings]
) -> None:
    """Complete the run while holding its lease; if the lease is lost, wait for it again."""
    check_variables(os.environ)
    check_packages()
    specification = read_specification(Path(snakemake.params.specification))
    _check_code_unchanged(Path(snakemake.params.specification), specification, Path(snakemake.scriptdir))
    while True:
        lease = Lease(Path(snakemake.output.manifest).with_suffix(".lease"))
        try:
            with lease.held(), _assigned_gpu(snakemake):
                _complete(snakemake, specification, stage, settings)
            return
        except Interrupted:
            if not lease.is_lost:
                raise


def _complete(
    snakemake: Any,
    specification: Specification,
    stage: Callable[[Settings, StageContext], StageResult],
    settings: type[Settings],
) -> None:
    """Run the stage, or find the run already complete, and write the provenance record and the manifest."""
    began, clock = datetime.now().astimezone(), time.monotonic()
    manifest = Path(snakemake.output.manifest)
    is_product = manifest.parts[0] == RESULTS.name
    if is_product:
        check_still_wanted(manifest, specification.digest)
    _clear_leftovers(manifest)
    inputs = read_inputs(specification)
    work = StageContext(
        folder=Path(snakemake.params.get("folder", manifest.parent)),
        digest=specification.digest,
        inputs=inputs,
        threads=specification.threads,
        checkpoint_seconds=specification.execution.checkpoint_seconds,
        trained=trained_behind(specification, inputs),
    )
    seals = {specification.builds_on[role]: found.seal for role, found in inputs.items()} if is_product else {}
    record = None
    if work.folder == manifest.parent:  # for a shard of a run's images, the stage checks the files itself
        record = _completed_record(provenance_path(manifest), work, seals)
    if record is not None:
        log.info("already complete (by %s), all hashes verified; its log:", _maker(record))
        log.info("%s", "".join(f"\n    {line}" for line in record.log))  # Snakemake has deleted the log itself
    else:
        _log_environment(specification)
        attempts = record_attempt(manifest, work, began) if snakemake.resources.get("gpu") else []
        outcome = stage(settings.model_validate_json(json.dumps(specification.settings)), work)
        check_packages()  # again, for modules that the stage has imported while it ran
        content = manifest_content(
            work.folder, specification.stage, work.digest, outcome.files, outcome.facts, work.trained, seals
        )
        seconds = time.monotonic() - clock  # the system clock may have been set meanwhile
        log.info("done in %.1f s", seconds)
        records = {name: sha256_of_path(path_inside(work.folder, name)) for name in outcome.records}
        lines = log_lines(Path(snakemake.log[0]))
        record = build_provenance(specification, content, began, seconds, records, attempts[:-1], lines)
        write_record(provenance_path(manifest), record)
    manifest.with_suffix(ATTEMPTS_SUFFIX).unlink(missing_ok=True)
    earlier_log(Path(snakemake.log[0])).unlink(missing_ok=True)  # the provenance record has the log by now
    write_record(manifest, record.manifest)
    work.checkpoint.unlink(missing_ok=True)


def _clear_leftovers(manifest: Path) -> None:
    """Remove the partial files of a killed attempt. This job holds the lease, so no other job writes them.

    The shards of a run share a folder, and so do tables. There, a job's partial files are those with the name of its
    manifest.
    """
    is_alone = manifest.name == MANIFEST
    for folder, folders, files in os.walk(manifest.parent):  # does not follow links into the user's own folders
        partial = [name for name in (*folders, *files) if name.startswith("." if is_alone else f".{manifest.stem}.")]
        folders[:] = [name for name in folders if is_alone and name not in partial]
        for path in (Path(folder, name) for name in partial if ".lease" not in name and SPECIFICATION not in name):
            log.info("%s: partial file of an earlier attempt; removed", path)
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@contextmanager
def _assigned_gpu(snakemake: Any) -> Iterator[None]:
    """Make one GPU visible while the block runs, if the rule requests one."""
    if not snakemake.resources.get("gpu"):
        yield
        return
    with one_gpu():
        check_assigned_gpu()
        yield


def _completed_record(path: Path, context: StageContext, seals: Mapping[str, str]) -> Provenance | None:
    """The provenance record of this run, if an earlier job has completed it and all its files are unchanged.

    A product must also have been made from inputs with the same `seals`. Snakemake deletes the outputs of a job (its
    manifest) before it starts the job. It starts a completed job again if the Snakemake process that submitted the job
    died before it saw the job end. The provenance record is no output, so it still exists.
    """
    try:
        record = read_provenance(path)
        is_whole = all(
            sha256_of_path(path_inside(context.folder, name)) == sha256 for name, sha256 in record.records.items()
        )
    except (ArtefactError, OSError):
        return None
    same_inputs = record.manifest.trained == context.trained and record.manifest.inputs == seals
    return (
        record if is_whole and same_inputs and matches_files(record.manifest, context.folder, context.digest) else None
    )


def _maker(record: Provenance) -> str:
    job = f"job {record.scheduler_job}" if record.scheduler_job else "a process"
    return f"{job} on {record.host} at {record.finished}"


def _log_environment(specification: Specification) -> None:
    node = os.environ.get("SLURMD_NODENAME") or platform.node()
    job = os.environ.get("SLURM_JOB_ID")
    log.info("%s %s", specification.stage, specification.slug)
    log.info("on %s%s, %s", node, f", job {job}" if job else "", device_description())
    versions = {"python": platform.python_version(), **specification.packages}
    versions_as_text = ", ".join(f"{name} {version}" for name, version in versions.items())
    log.info("%d CPU thread(s), %s", specification.threads, versions_as_text)


def _check_code_unchanged(path: Path, specification: Specification, script_folder: Path) -> None:
    """Raise `ArtefactError` if the code or the packages differ from those in the specification."""
    scripts = [path_inside(script_folder.resolve(), name) for name in specification.code if name.endswith(".py")]
    if not scripts:
        raise ArtefactError(f"{path}: it names no script, expected the script of its stage; delete it.")
    for kind, planned, current in (
        ("module", specification.code, code_digests(*scripts)),
        ("package", specification.packages, package_versions(*scripts)),
    ):
        names = planned.keys() | current.keys()
        if differing := sorted(name for name in names if planned.get(name) != current.get(name)):
            raise ArtefactError(
                f"{path}: {kind} {differing[0]} has changed since this run was planned; ask for the target again to "
                "plan it with the present code."
            )
