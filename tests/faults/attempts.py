"""Attempts at a job: real scripts in forked processes, killed at given moments, and the files that they leave.

This process has imported all modules that any job imports, so a disturbance hits the work of a job, not its imports.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from corelib.files.sealed_json import has_its_seal
from corelib.runs.stage_registry import PRODUCTS, STAGES

MAX_SECONDS = 180.0
"""Seconds after which an attempt counts as stuck."""

RECORD = re.compile(r".*\.provenance\..*|.*/report\.(html|costs\.\w+)")
"""Files that describe a computation; they differ between equal results."""
WRITING = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.utime", "os.symlink", "os.link"}
"""Python's audit events that change files, or may change them."""


@dataclass(frozen=True)
class Job:
    """A job of the reference, as Snakemake would start it; all paths are relative to the working directory.

    Attributes:
        label: the stage, and the slug where a stage has several kinds of runs.
        script: the script that Snakemake executes.
        specification: the file that it reads.
        manifest: the file that it writes last.
        outputs: the files that Snakemake deletes before each attempt and after a failed one.
        log: its log file.
        folder: the folder in which its stage writes, if not that of the manifest.
        shard: the number of its shard, and the number of shards.
    """

    label: str
    script: str
    specification: Path
    manifest: Path
    outputs: tuple[Path, ...]
    log: Path
    folder: Path | None = None
    shard: tuple[str, str] | None = None

    @property
    def stage(self) -> str:
        return self.label.split()[0]


class Reference:
    """A working directory in which Snakemake has built a study without disturbance."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: dict[Path, Job] = {}
        products = {
            json.loads(path.read_text())["digest"]: path.relative_to(folder)
            for path in folder.glob("results/**/*.json")
            if ".provenance." not in path.name
        }
        for path in sorted(folder.glob("runs/*/*/specification.json")):
            content = json.loads(path.read_text())
            for job in self._jobs_of(path.relative_to(folder), content, products):
                if (folder / job.manifest).exists():
                    self.jobs[job.manifest] = job

    def _jobs_of(self, specification: Path, content: Any, products: dict[str, Path]) -> Iterator[Job]:
        stage, run = content["stage"], specification.parent
        script = next(name for name in content["code"] if name.endswith(".py") and name != "gather.py")
        label = f"unlearning {content['slug'].rpartition('-')[0].split('-')[0]}" if stage == "unlearning" else stage
        log = Path("logs", *run.parts[1:])
        if stage in PRODUCTS:
            if content["digest"] in products:
                manifest = products[content["digest"]]
                made = json.loads((self.folder / manifest).read_text())["files"]
                record = json.loads((self.folder / manifest).with_suffix(".provenance.json").read_text())
                files = [*made, *record["records"]]
                outputs = (manifest, *(manifest.parent / name for name in files))
                yield Job(label, script, specification, manifest, outputs, "logs" / manifest.with_suffix(".log"))
        elif stage == "samples":
            for path in sorted((self.folder / run / "shards").glob("*-of-????.json")):
                manifest = run / "shards" / path.name
                shard = tuple(path.stem.split("-of-"))
                yield Job(label, script, specification, manifest, (manifest,), log / f"{path.stem}.log", run, shard)
            manifest = run / "manifest.json"
            yield Job("gathering", "gather.py", specification, manifest, (manifest,), log / "gather.log")
        else:
            manifest = run / "manifest.json"
            yield Job(label, script, specification, manifest, (manifest,), log.with_name(f"{log.name}.log"))

    def representatives(self) -> list[Job]:
        """The first job of each label, in the order in which data flows."""
        found: dict[str, Job] = {}
        for job in self.jobs.values():
            found.setdefault(job.label, job)
        rank = {label: number for number, label in enumerate(STAGES)}
        return sorted(found.values(), key=lambda job: (rank.get(job.stage, rank["samples"] + 0.5), job.label))

    def shards_of(self, job: Job) -> list[Job]:
        """The jobs that sample the images that a job gathers; empty for any other job."""
        if job.label != "gathering":
            return []
        shards = sorted((self.folder / job.manifest.parent / "shards").glob("*-of-????.json"))
        shares = [path.relative_to(self.folder) for path in shards if ".provenance." not in path.name]
        return [self.jobs[path] for path in shares]

    def built_on(self, job: Job) -> list[Job]:
        """The jobs that wrote the inputs of a job."""
        content = json.loads((self.folder / job.specification).read_text())
        return [self.jobs[Path("runs", name, "manifest.json")] for name in sorted({*content["builds_on"].values()})]


class Place:
    """A working directory for the attempts at one job, with the inputs of the job and none of its files."""

    def __init__(self, reference: Reference, job: Job, folder: Path, put: Callable[[str, str], Any] = os.link) -> None:
        self.reference, self.job, self.folder = reference, job, folder
        self.terminal_path = folder.with_name("terminal")
        folder.mkdir(parents=True)
        if (reference.folder / "assets").exists():
            (folder / "assets").symlink_to(reference.folder / "assets")
        for below in reference.built_on(job):
            self.copy_run(below, put)
        if job.label == "gathering":
            self.copy_run(job, put)
            self.clear_outputs(job)
            (folder / job.manifest).with_suffix(".provenance.json").unlink()
        self.write_specification(job)

    def copy_run(self, job: Job, put: Callable[[str, str], Any] = os.link) -> None:
        """Copy the complete run of a job into the working directory."""
        run = job.specification.parent
        if not (self.folder / run / "manifest.json").exists():
            shutil.rmtree(self.folder / run, ignore_errors=True)
            shutil.copytree(self.reference.folder / run, self.folder / run, symlinks=True, copy_function=put)

    def write_specification(self, job: Job) -> None:
        """Write a missing specification of a run, as Snakemake's controller does before the first job."""
        path, planned = self.folder / job.specification, self.reference.folder / job.specification
        if not path.is_file() or path.read_bytes() != planned.read_bytes():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            shutil.copyfile(planned, path)
            for link in planned.parent.iterdir():
                if link.is_symlink() and not (path.parent / link.name).is_symlink():
                    (path.parent / link.name).symlink_to(os.readlink(link))

    def clear_outputs(self, job: Job, with_log: bool = True) -> None:
        """Delete the outputs and the log, as Snakemake does before a job; after a failed job, it keeps the log."""
        for path in (*job.outputs, job.log) if with_log else job.outputs:
            if (self.folder / path).exists():
                (self.folder / path).unlink()

    def listing(self) -> dict[str, str]:
        """The sha256 of every file; for provenance records, only whether the seal matches the content."""
        found = {}
        for top in ("runs", "results"):
            for path in sorted((self.folder / top).rglob("*")):
                if path.is_file() or path.is_symlink():
                    name = str(path.relative_to(self.folder))
                    if name.endswith(".provenance.json"):
                        found[name] = "sealed" if _is_sealed(path) else "not sealed"
                    else:
                        known = not RECORD.fullmatch(name) and path.is_file()
                        found[name] = sha256(path.read_bytes()).hexdigest() if known else ""
        return found

    @property
    def log(self) -> str:
        """The log of the last attempt."""
        path = self.folder / self.job.log
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def terminal(self) -> str:
        """The output of the last attempts that went to the terminal instead of the log."""
        return self.terminal_path.read_text(errors="replace") if self.terminal_path.exists() else ""

    def unfinished(self) -> list[str]:
        """Temporary files, leases and saved states."""
        names = [
            str(path.relative_to(self.folder)) for top in ("runs", "results") for path in (self.folder / top).rglob("*")
        ]
        return [name for name in names if re.search(r"(^|/)\.|\.lease|checkpoint\.pt$", name)]

    def is_inside_a_write(self) -> bool:
        """Whether a write was interrupted, so that there is a temporary file that does not belong to a lease."""
        return any(re.search(r"(^|/)\.", name) and ".lease" not in name for name in self.unfinished())


def _is_sealed(path: Path) -> bool:
    try:
        return has_its_seal(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return False


@dataclass
class AttemptEnd:
    """The end of an attempt.

    Attributes:
        status: its exit status, or minus the signal that killed it.
        seconds: processor time after the imports, in seconds.
        events: its operations on the disk, if these were requested.
    """

    status: int
    seconds: float
    events: list[str] = field(default_factory=list)

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL


@dataclass(frozen=True)
class Moment:
    """The moment of a kill.

    Attributes:
        seconds: processor time after the start (independent of other processes), or time after an event's beginning,
            where 0 means before it.
        event: number of the event.
    """

    seconds: float = 0.0
    event: int | None = None


def attempt(
    job: Job, place: Place, kill: Moment | None = None, watch: bool = False, prepare: Callable[[], None] | None = None
) -> AttemptEnd:
    """Start a job in its own process, as Snakemake does, and wait until it ends, or kill it."""
    place.clear_outputs(job)
    (place.folder / job.manifest).parent.mkdir(parents=True, exist_ok=True)
    (place.folder / job.log).parent.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _job(job, place, writing, kill, watch, prepare)
    os.close(writing)
    ended = _await(pid, reading, kill, watch)
    os.close(reading)
    if ended.status != 0:
        place.clear_outputs(job, with_log=False)
    return ended


def _await(pid: int, reading: int, kill: Moment | None, watch: bool) -> AttemptEnd:
    end = os.pidfd_open(pid)
    os.read(reading, 1)  # the job has begun
    deadline = time.monotonic() + MAX_SECONDS
    received = b""
    is_timed = kill is not None and kill.event is None
    before = _processor_time(pid)
    while True:
        ready = select.select([end, reading], [], [], 0.001 if is_timed else MAX_SECONDS)[0]
        if reading in ready and (part := os.read(reading, 1 << 16)):
            received += part
            if kill is not None and kill.event is not None:  # the job has reached the event
                time.sleep(kill.seconds)
                os.kill(pid, signal.SIGKILL)
        elif end in ready:
            break
        elif is_timed and kill is not None and _processor_time(pid) - before >= kill.seconds:
            os.kill(pid, signal.SIGKILL)
            is_timed = False
        elif time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            raise TimeoutError(f"an attempt has taken longer than {MAX_SECONDS:.0f} s")
    _, status, used = os.wait4(pid, 0)
    os.close(end)
    seconds = used.ru_utime + used.ru_stime - before
    return AttemptEnd(os.waitstatus_to_exitcode(status), seconds, received.decode().splitlines() if watch else [])


def _processor_time(pid: int) -> float:
    """Processor time of all threads of a process in seconds; 0 if it has ended."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # the ID of a process's clock in Linux
    except OSError:
        return 0.0


def _job(
    job: Job, place: Place, writing: int, kill: Moment | None, watch: bool, prepare: Callable[[], None] | None
) -> None:
    """The body of the forked process."""
    status = 1
    try:
        os.chdir(place.folder)
        terminal = os.open(place.terminal_path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(terminal, 1)
        os.dup2(terminal, 2)
        if prepare is not None:
            prepare()
        path = place.reference.folder / "workflow_scripts" / job.script
        script = compile(path.read_text(), str(path), "exec")
        if watch or (kill is not None and kill.event is not None):
            _watch(str(place.folder), writing, kill)
        os.write(writing, b".")
        exec(script, {"snakemake": _snakemake_object(job, path.parent), "__name__": "__main__"})
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stderr.flush()
        finally:
            os._exit(status)


class _Parameters(dict):  # type: ignore[type-arg]
    __getattr__ = dict.__getitem__


def _snakemake_object(job: Job, scripts: Path) -> SimpleNamespace:
    """The object that Snakemake passes to scripts, with the attributes that our scripts use."""
    parameters = _Parameters(specification=str(job.specification))
    if job.folder is not None:
        parameters["folder"] = str(job.folder)
    wildcards = SimpleNamespace(shard=job.shard[0], shards=job.shard[1]) if job.shard else SimpleNamespace()
    return SimpleNamespace(
        log=[str(job.log)],
        params=parameters,
        output=SimpleNamespace(manifest=str(job.manifest)),
        wildcards=wildcards,
        scriptdir=str(scripts),
        resources={},
    )


def _watch(folder: str, writing: int, kill: Moment | None) -> None:
    """Count the disk operations of this process in a folder; report them, or kill the process at the given event."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in WRITING or not arguments:
            return
        path = arguments[0]
        if not isinstance(path, str | bytes | os.PathLike):
            return
        name = os.fsdecode(path)
        if name.startswith("/") and not name.startswith(folder):
            return
        if event == "open":
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            mode = arguments[1] or ""
            is_written = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or set(mode) & set("wax+")
            if not is_written and not os.path.basename(name).startswith("."):  # hidden files are opened to flush them
                return
        seen += 1
        if kill is None:
            os.write(writing, f"{event} {name.removeprefix(folder)}\n".encode())
        elif seen - 1 == kill.event:
            if kill.seconds == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            os.write(writing, b"!")

    sys.addaudithook(hook)


def in_a_process(compute: Callable[[], Any]) -> Any:
    """Run a function in a separate process, so that this process starts no threads. The result is passed as JSON."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, json.dumps(compute()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        content = stream.read()
    os.waitpid(pid, 0)
    return json.loads(content) if content else None
