"""The owner of a lease: the process that holds it."""

from __future__ import annotations

import errno
import json
import os
import platform
import time
import uuid
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

TIME = "%Y-%m-%dT%H:%M:%S%z"
"""Format of the time at which a lease was taken."""

JOB, NODE = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURMD_NODENAME")
"""Of the Slurm job in which this process runs, if it is one. Snakemake's executor clears the variables later."""


def _checked_time(text: str) -> str:
    time.strptime(text, TIME)  # which raises `ValueError`
    return text


class Owner(BaseModel):
    """The process that holds a lease.

    Attributes:
        host: name of the machine, and `node` the scheduler's name for it, if there is one.
        pid: number of the process, in a process `namespace` and `started` at a time (both as the kernel says), so that
            another process of the same number is not taken for it.
        job: the scheduler's number of its job, if there is one.
        began: when it took the lease.
        nonce: unlike that of any other owner.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    host: str
    node: str | None
    pid: Annotated[int, Field(gt=0, lt=2**31)]
    namespace: str
    started: str
    job: str | None
    began: Annotated[str, AfterValidator(_checked_time)]
    nonce: str

    @classmethod
    def of_this_process(cls) -> Owner:
        """The owner that this process is; another one at every call."""
        return cls(
            host=platform.node(),
            node=NODE,
            pid=os.getpid(),
            namespace=_namespace(),
            started=_start_of(os.getpid()),
            job=JOB,
            began=time.strftime(TIME),
            nonce=uuid.uuid4().hex,
        )

    def is_gone(self) -> bool:
        """Whether it certainly lives no more: on this machine its process is no longer there."""
        return self.is_from_here() and not _lives(self.pid, self.started)

    def is_an_earlier_attempt(self) -> bool:
        """Whether the scheduler had started the job of this process before, on another machine, under the same number.

        Should that machine live on, cut off from the others, its process will notice that it has lost the lease.
        """
        return self.job is not None and self.job == JOB and not self.is_from_here()

    def is_from_here(self) -> bool:
        """Whether this process could see it."""
        return (self.host, self.namespace) == (platform.node(), _namespace())

    @property
    def place(self) -> str:
        """Its job or process, and the machine, as one looks for it."""
        return f"job {self.job} on {self.node or self.host}" if self.job else f"process {self.pid} on {self.host}"

    def __str__(self) -> str:
        return f"{self.place} (since {self.began})"


def read_owner(path: Path) -> Owner | None:
    """Read the owner of the lease in a file.

    None if there is no lease, or if it is not an owner: a process that has not finished writing its name, or that was
    killed while it did, holds nothing yet. Raises `OSError` if the file cannot be read.
    """
    try:
        return Owner.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, RecursionError):  # `ValidationError` and broken JSON are `ValueError`s
        return None
    except OSError as error:
        if error.errno == errno.ESTALE:  # a network file system's word for a file that was replaced meanwhile
            return None
        raise


def owner_as_json(owner: Owner) -> str:
    """The content of a lease that the owner holds."""
    return json.dumps(owner.model_dump())


def is_held(path: Path) -> bool:
    """Whether a process that may be alive holds the lease in a file."""
    owner = read_owner(path)
    return owner is not None and not owner.is_gone()


def _namespace() -> str:
    """The process namespace and the boot that a process number belongs to."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _lives(pid: int, started: str) -> bool:
    """Whether the process of this number that started at that time is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, of which the system may show nothing more
        return True
    return _start_of(pid) == started


def _start_of(pid: int) -> str:
    """When a process started, in the kernel's ticks; empty if it has ended, or where the kernel does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    state, started = fields[0], fields[19]
    return "" if state in "ZX" else started
