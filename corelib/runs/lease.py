"""Who is computing a run: a file beside its manifest, renewed while its owner lives.

When the process that submits jobs dies, its jobs live on, and a rerun submits them again. The second job finds the
lease of the first, waits until it is given back or has not been renewed for a while, and then goes on from what lies
there. Locks of the file system would be simpler, but on a cluster they often do not reach from node to node.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corelib.runs.lease_owner import Owner, owner_as_json, read_owner

log = logging.getLogger(__name__)

RENEWAL = 10.0
"""Seconds between two renewals."""

EXPIRY = 60.0
"""Seconds without a renewal after which an owner elsewhere counts as dead: several, for file systems that stall."""


class Lease:
    """The right to compute a run, held by one process at a time.

    Should its owner lose it all the same, because its machine was cut off for longer than `expiry`, the process is
    asked to end, as a scheduler would ask it.

    Args:
        path: the file that says who holds it.
        renewal: seconds between two renewals.
        expiry: seconds without a renewal after which it may be taken over from another machine.

    Attributes:
        owner: who this process is, should it hold the lease.
        is_lost: whether it held the lease and somebody else has it now.
    """

    def __init__(self, path: Path, renewal: float = RENEWAL, expiry: float = EXPIRY) -> None:
        self.path = path
        self.renewal = renewal
        self.expiry = expiry
        self.owner = Owner.of_this_process()
        self.is_lost = False
        self._given_back = threading.Event()
        self._renewing: threading.Thread | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lease while the block runs; wait for it first, if somebody else does."""
        self.take()
        try:
            yield
        finally:
            self.give_back()

    def take(self, patience: float = math.inf) -> None:
        """Hold the lease from now on until it is given back.

        Raises `LeaseTaken` if somebody else still holds and renews it after `patience` seconds; of the dead, it knows
        within `expiry`.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        watch = _Watch(self.expiry)
        while not self._create():
            holder, renewed = self.holder(), self._renewed()
            if renewed is None:  # given back meanwhile
                continue
            if watch.sees_somebody_new(holder):
                log.info("%s: the lease is held by %s; waiting for its result or its end", self.path, holder)
            if watch.believes_in_the_end_of(holder, renewed):
                log.info("%s: the lease of %s has expired; taking over", self.path, holder or "its owner")
                if self._succeed(holder, renewed, watch):
                    break
            elif watch.has_seen_life_of(holder) and time.monotonic() - began > patience:
                raise LeaseTaken(holder)
            time.sleep(min(1.0, self.renewal))
        self._renewing = threading.Thread(target=self._renew, daemon=True)
        self._renewing.start()

    def give_back(self) -> None:
        """Let others have the lease."""
        self._given_back.set()
        if self._renewing is not None:
            self._renewing.join()
        try:
            if self.holder() == self.owner:
                self.path.unlink(missing_ok=True)
        except OSError as error:  # the others will see that this process lives no more
            log.warning("%s: the lease cannot be released (%s)", self.path, error.strerror)

    def holder(self) -> Owner | None:
        """Who holds the lease, or None; somebody who has not finished writing his name is nobody yet."""
        return read_owner(self.path)

    def _create(self) -> bool:
        """Take the lease if nobody holds it; whether that was so."""
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        self._sign(descriptor, self.path)
        return True

    def _sign(self, descriptor: int, path: Path) -> None:
        """Write this process's name into a new file, or remove it: where there is no room, nobody shall wait for it."""
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(owner_as_json(self.owner))
        except OSError as error:
            path.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(path)) from error

    def _succeed(self, dead: Owner | None, renewed: int, watch: _Watch) -> bool:
        """Put this process in the place of a dead owner; whether it came first.

        Of several that want to, the one that creates the successor's mark may, if the lease still is the dead one's.
        """
        mark = self.path.with_name(f".{self.path.name}.after-{dead.nonce if dead else renewed}")
        try:
            descriptor = os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            if watch.has_seen_for_long(mark):  # its creator has died as well
                mark.unlink(missing_ok=True)
            return False
        try:
            self._sign(descriptor, mark)
            if (self.holder(), self._renewed()) != (dead, renewed):
                return False
            os.replace(mark, self.path)
            return True
        finally:
            mark.unlink(missing_ok=True)

    def _renewed(self) -> int | None:
        """When the lease was last renewed, in nanoseconds of somebody's clock; None if it is not there."""
        try:
            return self.path.stat().st_mtime_ns
        except OSError:
            return None

    def _renew(self) -> None:
        while not self._given_back.wait(self.renewal):
            try:
                holder = self.holder()
                if holder == self.owner:
                    os.utime(self.path)
                    continue
            except OSError as error:
                log.warning("%s: the lease cannot be renewed (%s)", self.path, error.strerror)
                continue
            log.error("%s: the lease was lost to %s", self.path, holder or "an unknown process, which removed it")
            self.is_lost = True
            os.kill(os.getpid(), signal.SIGTERM)
            return


class LeaseTaken(Exception):
    """Somebody else holds the lease, and lives."""

    def __init__(self, holder: Owner | None) -> None:
        super().__init__(str(holder or "an unknown process"))


class _Watch:
    """What one process knows of the owner of a lease by looking at it, and by its own clock alone.

    The clocks of other machines, and so the times of files, may differ from this one's by more than `expiry`.
    """

    def __init__(self, expiry: float) -> None:
        self.expiry = expiry
        self._holder: Owner | None = None
        self._renewed: int | None = None
        self._seen_renewing = False
        self._unchanged_since = time.monotonic()
        self._mark: tuple[str, int, int] | None = None
        self._mark_seen_since = time.monotonic()

    def sees_somebody_new(self, holder: Owner | None) -> bool:
        if holder is None or holder == self._holder:
            return False
        self._holder, self._renewed, self._seen_renewing = holder, None, False
        return True

    def believes_in_the_end_of(self, holder: Owner | None, renewed: int) -> bool:
        if renewed != self._renewed:
            self._seen_renewing = self._renewed is not None
            self._renewed, self._unchanged_since = renewed, time.monotonic()
        if holder is not None and holder.is_from_here():
            return holder.is_gone()
        if holder is not None and holder.is_an_earlier_attempt():
            return True
        return time.monotonic() - self._unchanged_since > self.expiry

    def has_seen_for_long(self, mark: Path) -> bool:
        """Whether one and the same file has been there for longer than `expiry`."""
        try:
            now = mark.stat()
        except OSError:
            return False
        if (seen := (mark.name, now.st_ino, now.st_mtime_ns)) != self._mark:
            self._mark, self._mark_seen_since = seen, time.monotonic()
        return time.monotonic() - self._mark_seen_since > self.expiry

    def has_seen_life_of(self, holder: Owner | None) -> bool:
        return self._seen_renewing or (holder is not None and holder.is_from_here() and not holder.is_gone())
