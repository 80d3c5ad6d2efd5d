"""The frame of every script: specification in, manifest and provenance out, and a log that can be found.

A job reads its specification and nothing else of the configuration. It refuses to work if the code or the packages
have changed since it was planned: its result would lie at an address that does not describe it.
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

from corelib.errors import ASKING_TO_END, ArtefactError, Interrupted, UserError
from corelib.files.atomic import NO_ROOM
from corelib.files.hashing import sha256_of
from corelib.files.paths import below
from corelib.files.sealed_json import write_record
from corelib.runs.environment import check_variables
from corelib.runs.fingerprint import code_of, packages_of
from corelib.runs.gpu import check_that_it_computes, one_gpu
from corelib.runs.job_log import JobLog, lines_of
from corelib.runs.job_provenance import ATTEMPTS, attempts_at, device_in_words, provenance_of
from corelib.runs.layout import MANIFEST, RESULTS, SPECIFICATION
from corelib.runs.lease import Lease
from corelib.runs.manifest import is_still_true, vouched_for
from corelib.runs.packages import check_packages
from corelib.runs.provenance import Provenance, provenance_path, read_provenance
from corelib.runs.requests import check_still_wanted
from corelib.runs.specification import Specification, read_specification
from corelib.runs.stage import Outcome, Work
from corelib.runs.upstream import read_inputs, trained_behind
from corelib.settings.section import Section

log = logging.getLogger(__name__)

Settings = TypeVar("Settings", bound=Section)

INTERRUPTED = 75
"""Exit status of a job that was asked to end and has saved its state (EX_TEMPFAIL: try again)."""


def run_job(snakemake: Any, stage: Callable[[Settings, Work], Outcome], settings: type[Settings]) -> None:
    """Run one stage for one Snakemake job.

    Args:
        snakemake: the object that Snakemake gives to scripts, with `params.specification` and `output.manifest`.
        stage: the function that does the work.
        settings: the type of what it reads.

    Exits with one sentence for a `UserError`, and with a traceback for anything else, both at the end of the job's log.
    When it is asked to end, it saves what can be saved, leaves nothing half written, and exits with `INTERRUPTED`.
    """
    try:
        logging.basicConfig(level=logging.INFO, handlers=[JobLog(Path(snakemake.log[0]))], force=True)
    except OSError as error:
        print(f"Error: {error.filename}: {error.strerror}, expected a place for the job's log.", file=sys.stderr)
        sys.exit(1)
    for asking in ASKING_TO_END:
        signal.signal(asking, _end)
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
            place = error.filename or snakemake.output.manifest
            log.error("Error: %s: %s, expected a place with room to write.", place, error.strerror)
            sys.exit(1)
        log.error("%s", traceback.format_exc())
        sys.exit(1)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted(f"asked to end ({signal.Signals(number).name}); what was complete is kept")


def _work(snakemake: Any, stage: Callable[[Settings, Work], Outcome], settings: type[Settings]) -> None:
    """Do the work, or take over what another job has made of it in the meantime."""
    check_variables(os.environ)
    check_packages()
    specification = read_specification(Path(snakemake.params.specification))
    _check_that_it_is_still_meant(Path(snakemake.params.specification), specification, Path(snakemake.scriptdir))
    while True:
        lease = Lease(Path(snakemake.output.manifest).with_suffix(".lease"))
        try:
            with lease.held(), _its_gpu(snakemake):
                _make(snakemake, specification, stage, settings)
            return
        except Interrupted:
            if not lease.is_lost:
                raise


def _make(
    snakemake: Any, specification: Specification, stage: Callable[[Settings, Work], Outcome], settings: type[Settings]
) -> None:
    began, clock = datetime.now().astimezone(), time.monotonic()
    manifest = Path(snakemake.output.manifest)
    is_product = manifest.parts[0] == RESULTS.name
    if is_product:
        check_still_wanted(manifest, specification.digest)
    _clear_leftovers(manifest)
    inputs = read_inputs(specification)
    work = Work(
        folder=Path(snakemake.params.get("folder", manifest.parent)),
        digest=specification.digest,
        inputs=inputs,
        threads=specification.threads,
        checkpoint_seconds=specification.execution.checkpoint_seconds,
        trained=trained_behind(specification, inputs),
    )
    seals = {specification.builds_on[role]: lies.seal for role, lies in inputs.items()} if is_product else {}
    record = None
    if work.folder == manifest.parent:  # a share of a run's images is looked through by its stage
        record = _made_before(provenance_path(manifest), work, seals)
    if record is not None:
        log.info("made before by %s; every file is as it was left. Its log:", _maker(record))
        log.info("%s", "".join(f"\n    {line}" for line in record.log))  # Snakemake has deleted the log itself
    else:
        _say_where_it_runs(specification)
        attempts = attempts_at(manifest, work, began) if snakemake.resources.get("gpu") else []
        outcome = stage(settings.model_validate_json(json.dumps(specification.settings)), work)
        check_packages()  # once more, for what the stage imported while it ran
        made = vouched_for(
            work.folder, specification.stage, work.digest, outcome.files, outcome.facts, work.trained, seals
        )
        seconds = time.monotonic() - clock  # the time of day may be set meanwhile
        log.info("done in %.1f s", seconds)
        records = {name: sha256_of(below(work.folder, name)) for name in outcome.records}
        lines = lines_of(Path(snakemake.log[0]))
        record = provenance_of(specification, made, began, seconds, records, attempts[:-1], lines)
        write_record(provenance_path(manifest), record)
    manifest.with_suffix(ATTEMPTS).unlink(missing_ok=True)
    write_record(manifest, record.manifest)
    work.checkpoint.unlink(missing_ok=True)


def _clear_leftovers(manifest: Path) -> None:
    """Remove what an attempt that was killed has left half written; the lease says that nobody else works here.

    Shards of a run share a folder, and tables theirs: there, a job knows only the files that bear its manifest's name.
    """
    is_alone = manifest.name == MANIFEST
    for folder, folders, files in os.walk(manifest.parent):  # which follows no links into the user's own folders
        left = [name for name in (*folders, *files) if name.startswith("." if is_alone else f".{manifest.stem}.")]
        folders[:] = [name for name in folders if is_alone and name not in left]
        for path in (Path(folder, name) for name in left if ".lease" not in name and SPECIFICATION not in name):
            log.info("%s: left half written by an earlier attempt; removed", path)
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@contextmanager
def _its_gpu(snakemake: Any) -> Iterator[None]:
    """The GPU that the rule asks for, while the block runs."""
    if not snakemake.resources.get("gpu"):
        yield
        return
    with one_gpu():
        check_that_it_computes()
        yield


def _made_before(path: Path, work: Work, seals: Mapping[str, str]) -> Provenance | None:
    """The provenance record of this very run, if an earlier job has completed it and its files are still whole.

    A product has to be made of the same content, too, of which `seals` are. Snakemake deletes a job's outputs, that is
    manifests, before it starts the job, and starts it again if the process that had submitted it died before it saw it
    end. The provenance record is no output, so it is still there.
    """
    try:
        record = read_provenance(path)
        is_whole = all(sha256_of(below(work.folder, name)) == sha256 for name, sha256 in record.records.items())
    except (ArtefactError, OSError):
        return None
    is_of_these = record.manifest.trained == work.trained and record.manifest.inputs == seals
    return record if is_whole and is_of_these and is_still_true(record.manifest, work.folder, work.digest) else None


def _maker(record: Provenance) -> str:
    job = f"job {record.scheduler_job}" if record.scheduler_job else "a process"
    return f"{job} on {record.host} at {record.finished}"


def _say_where_it_runs(specification: Specification) -> None:
    place = os.environ.get("SLURMD_NODENAME") or platform.node()
    job = os.environ.get("SLURM_JOB_ID")
    log.info("%s %s", specification.stage, specification.slug)
    log.info("on %s%s, %s", place, f", job {job}" if job else "", device_in_words())
    versions = {"python": platform.python_version(), **specification.packages}
    written = ", ".join(f"{name} {version}" for name, version in versions.items())
    log.info("%d CPU thread(s), %s", specification.threads, written)


def _check_that_it_is_still_meant(path: Path, specification: Specification, scripts: Path) -> None:
    """Raise `ArtefactError` if the specification describes other code than what would run now."""
    own = [below(scripts.resolve(), name) for name in specification.code if name.endswith(".py")]
    if not own:
        raise ArtefactError(f"{path}: it names no script, expected that of its stage; delete it.")
    for kind, planned, now in (
        ("module", specification.code, code_of(*own)),
        ("package", specification.packages, packages_of(*own)),
    ):
        if differing := sorted(name for name in planned.keys() | now.keys() if planned.get(name) != now.get(name)):
            raise ArtefactError(
                f"{path}: {kind} {differing[0]} has changed since this run was planned, expected the same code; "
                "ask for the target again to plan it anew."
            )
