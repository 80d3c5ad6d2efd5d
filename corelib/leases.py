"""Who is computing a run: a file beside its manifest, renewed while its owner lives.

When the process that submits jobs dies, its jobs live on, and a rerun submits them again. The second job finds the
lease of the first, waits until it is given back or has not been renewed for a while, and then goes on from what lies
there. Locks of the file system would be simpler, but on a cluster they often do not reach from node to node.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)

RENEWAL = 10.0
"""Seconds between two renewals."""

EXPIRY = 60.0
"""Seconds without a renewal after which an owner counts as dead; several renewals, for file systems that stall."""

SETTLING = 1.0
"""Seconds in which somebody else who takes over the same lease at the same moment has written his name as well."""


@dataclass(frozen=True)
class Owner:
    """The process that holds a lease.

    Attributes:
        host: the machine, and `node` the scheduler's name for it, if there is one.
        pid: the process, in a process namespace and started at a time (both as the kernel says), so that another one
            of the same number is not taken for it.
        job: the scheduler's number of its job, if there is one.
        began: when it took the lease.
        nonce: unlike that of any other owner.
    """

    host: str
    node: str | None
    pid: int
    namespace: str
    started: str
    job: str | None
    began: str
    nonce: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def of_this_process(cls) -> Owner:
        """The owner that this process is; another one at every call."""
        return cls(
            host=platform.node(),
            node=os.environ.get("SLURMD_NODENAME"),
            pid=os.getpid(),
            namespace=_namespace(),
            started=_start_of(os.getpid()),
            job=os.environ.get("SLURM_JOB_ID"),
            began=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        )

    def is_gone(self) -> bool:
        """Whether it certainly lives no more: on this machine its process is no longer there."""
        if (self.host, self.namespace) != (platform.node(), _namespace()):
            return False
        return _start_of(self.pid) != self.started

    def is_an_earlier_attempt(self) -> bool:
        """Whether the scheduler has started the job of this process once before, under the same number."""
        return self.job is not None and self.job == os.environ.get("SLURM_JOB_ID")

    @property
    def place(self) -> str:
        """Its job or process, and the machine, as one looks for it."""
        return f"job {self.job} on {self.node or self.host}" if self.job else f"process {self.pid} on {self.host}"

    def __str__(self) -> str:
        return f"{self.place} (since {self.began})"


class Lease:
    """The right to compute a run, held by one process at a time.

    Should its owner lose it all the same, because the process was stopped for longer than `expiry`, the process is
    asked to end, as a scheduler would ask it.

    Args:
        path: the file that says who holds it.
        renewal: seconds between two renewals.
        expiry: seconds without a renewal after which it may be taken over.
    """

    def __init__(self, path: Path, renewal: float = RENEWAL, expiry: float = EXPIRY) -> None:
        self.path = path
        self.renewal = renewal
        self.expiry = expiry
        self.owner = Owner.of_this_process()
        self._given_back = threading.Event()
        self._renewing: threading.Thread | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lease while the block runs; wait for it first, if somebody else does."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._wait_for_it()
        self._keep()
        try:
            yield
        finally:
            self.give_back()

    def claim(self) -> Owner | None:
        """Hold the lease from now on until it is given back, or say who does."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self._is_taken():
            holder, renewed = self.holder(), self._renewed()
            is_alive = (
                renewed is not None and self._now() - renewed <= self.expiry and not (holder and holder.is_gone())
            )
            if is_alive or not self._take_over():
                return self.holder()
        self._keep()
        return None

    def give_back(self) -> None:
        """Let others have the lease."""
        self._given_back.set()
        if self._renewing is not None:
            self._renewing.join()
        if self.holder() == self.owner:
            self.path.unlink(missing_ok=True)

    def holder(self) -> Owner | None:
        """Who holds the lease, or None; somebody who has not finished writing his name is nobody yet."""
        return read_owner(self.path)

    def _wait_for_it(self) -> None:
        watched: tuple[Owner | None, float] | None = None
        unchanged_since = time.monotonic()
        while not self._is_taken():
            holder, renewed = self.holder(), self._renewed()
            if renewed is None:  # given back meanwhile
                continue
            if (holder, renewed) != watched:
                if holder and (watched is None or watched[0] != holder):
                    log.info("%s: held by %s; waiting for its result, or for its end", self.path, holder)
                watched, unchanged_since = (holder, renewed), time.monotonic()
            expired = time.monotonic() - unchanged_since > self.expiry or self._now() - renewed > self.expiry
            if expired or (holder and (holder.is_gone() or holder.is_an_earlier_attempt())):
                log.info("%s: %s has ended without giving it back; going on", self.path, holder or "its owner")
                if self._take_over():
                    return
            else:
                time.sleep(min(1.0, self.renewal))

    def _is_taken(self) -> bool:
        """Take the lease if nobody holds it."""
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(self.owner)))
        return True

    def _take_over(self) -> bool:
        candidate = self._candidate()
        candidate.write_text(json.dumps(asdict(self.owner)), encoding="utf-8")
        os.replace(candidate, self.path)
        time.sleep(min(SETTLING, self.expiry))
        return self.holder() == self.owner

    def _renewed(self) -> float | None:
        """When the lease was last renewed, by the clock of the file system; None if it is not there."""
        try:
            return self.path.stat().st_mtime
        except OSError:
            return None

    def _now(self) -> float:
        """What time it is by the clock of the file system."""
        candidate = self._candidate()
        try:
            candidate.touch()
            return candidate.stat().st_mtime
        finally:
            candidate.unlink(missing_ok=True)

    def _candidate(self) -> Path:
        return self.path.with_name(f".{self.path.name}.{self.owner.nonce}")

    def _keep(self) -> None:
        self._renewing = threading.Thread(target=self._renew, daemon=True)
        self._renewing.start()

    def _renew(self) -> None:
        while not self._given_back.wait(self.renewal):
            try:
                holder = self.holder()
                if holder == self.owner:
                    os.utime(self.path)
                    continue
            except OSError as error:
                log.warning("%s: cannot be renewed (%s)", self.path, error.strerror)
                continue
            log.error("%s: lost to %s; ending", self.path, holder or "somebody who removed it")
            os.kill(os.getpid(), signal.SIGTERM)
            return


def read_owner(path: Path) -> Owner | None:
    """Who holds the lease in a file, or None if there is none or it is not written to its end."""
    try:
        return Owner(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _namespace() -> str:
    """The process namespace and the boot that a process number belongs to."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    """When a process started, in the kernel's ticks; empty if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    state, started = fields[0], fields[19]
    return "" if state in "ZX" else started
