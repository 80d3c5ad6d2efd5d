"""Resumable training state: outside the outputs, written whole, removed by the job once its manifest is written.

Because every draw is addressed (`corelib.randomness`), tensors and a step number are all there is to save.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from corelib.errors import ASKING_TO_END, ArtefactError, Interrupted, reason_of
from corelib.files.atomic import written_whole
from corelib.files.pickle_inspection import check_sums, look_through
from corelib.files.torch_files import load_pickled

log = logging.getLogger(__name__)

State = Mapping[str, Any]


class Checkpoint:
    """The saved state of one run of a training loop.

    Args:
        path: where the state lies between attempts.
        owner: whose state it is; that of any other run, or on other models, is refused.
        seconds_between: how often `offer` really writes.
    """

    def __init__(self, path: Path, owner: str, seconds_between: float) -> None:
        self.path = path
        self.owner = owner
        self.seconds_between = seconds_between
        self._last_written = time.monotonic()
        self._asked_to_end = False

    def load(self) -> State | None:
        """The state of an earlier attempt, or None. Raises `ArtefactError` if it belongs to another run."""
        if not self.path.exists():
            return None
        if self.path.is_dir():
            raise ArtefactError(f"{self.path}: a folder, expected the state of a training; delete it to start afresh.")
        try:
            look_through(self.path)
            check_sums(self.path)
            content = load_pickled(self.path)
            owner, state = str(content["owner"]), dict(content["state"])
        except Exception as error:  # torch raises many kinds for damaged files
            log.warning("%s: not readable (%s); starting from the beginning.", self.path, reason_of(error))
            return None
        if owner != self.owner:
            raise ArtefactError(
                f"{self.path}: saved by another run, or with another build of the models that it builds on, expected a "
                "state of this one; delete it to start afresh."
            )
        return state

    @contextmanager
    def being_put_back(self) -> Iterator[None]:
        """Raise `ArtefactError` if the state that is put back in the block is not one of this training."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise ArtefactError(
                f"{self.path}: its state does not fit this training ({reason_of(error)}); delete it to start afresh."
            ) from None

    def offer(self, state: Callable[[], State]) -> None:
        """Save if enough time has passed, or at once and raise `Interrupted` if the job was asked to end."""
        if self._asked_to_end:
            self.save(state())
            raise Interrupted(f"asked to end; the state is saved in {self.path}")
        if time.monotonic() - self._last_written >= self.seconds_between:
            self.save(state())

    def save(self, state: State) -> None:
        """Write the state whole."""
        with written_whole(self.path) as temporary:
            torch.save({"owner": self.owner, "state": dict(state)}, temporary)
        self._last_written = time.monotonic()

    @contextmanager
    def watching_for_the_end(self) -> Iterator[None]:
        """While the block runs, being asked to end makes the next `offer` save and stop instead of the process."""

        def remember(_signal: int, _frame: FrameType | None) -> None:
            self._asked_to_end = True

        previous = {asking: signal.signal(asking, remember) for asking in ASKING_TO_END}
        try:
            yield
        finally:
            for asking, handler in previous.items():
                signal.signal(asking, handler)


def put_back_tensors(parameters: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> None:
    """Copy saved tensors into parameters. Raises `ValueError` if they are not theirs, by name, shape or type."""
    if differing := sorted(parameters.keys() ^ state.keys()):
        raise ValueError(f"{differing[0]} is not in both the state and the training")
    for name, parameter in parameters.items():
        saved = state[name]
        if saved.shape != parameter.shape or saved.dtype != parameter.dtype:
            found, expected = ((tuple(tensor.shape), tensor.dtype) for tensor in (saved, parameter))
            raise ValueError(f"{name} is {found}, expected {expected}")
        parameter.detach().copy_(saved)


def put_back(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load an optimizer's state. Raises `ValueError` if a tensor in it is not of its parameter's shape."""
    optimizer.load_state_dict(dict(state))
    for parameter, kept in optimizer.state.items():
        for name, tensor in kept.items():
            if isinstance(tensor, torch.Tensor) and tensor.shape not in ((), parameter.shape):
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(parameter.shape)}")
