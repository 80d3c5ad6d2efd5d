"""Resumable training state. It is no output, is written atomically, and is removed once the manifest is written.

Every random draw is addressed (`corelib.randomness`), so the state consists of tensors and a step number only.
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

from corelib.errors import TERMINATION_SIGNALS, ArtefactError, Interrupted, short_message
from corelib.files.atomic import atomic_write
from corelib.files.pickle_inspection import check_checksums, inspect_pickle
from corelib.files.torch_files import load_pickled

log = logging.getLogger(__name__)

State = Mapping[str, Any]


class Checkpoint:
    """The saved state of a training loop.

    Args:
        path: file in which the state is saved.
        owner: identifies the run and the models that it builds on (`StageContext.owner`); any other state is refused.
        seconds_between: minimum time between two saves by `save_if_due`, in seconds.
    """

    def __init__(self, path: Path, owner: str, seconds_between: float) -> None:
        self.path = path
        self.owner = owner
        self.seconds_between = seconds_between
        self._last_written = time.monotonic()
        self._must_end = False

    def load(self) -> State | None:
        """The state of an earlier attempt, or None if there is none or it is not readable.

        Raises `ArtefactError` if it belongs to another run, or if its path is a folder.
        """
        if not self.path.exists():
            return None
        if self.path.is_dir():
            raise ArtefactError(f"{self.path}: a folder, expected a checkpoint; delete it to start from the beginning.")
        try:
            inspect_pickle(self.path)
            check_checksums(self.path)
            content = load_pickled(self.path)
            owner, state = str(content["owner"]), dict(content["state"])
        except Exception as error:  # torch raises many kinds for damaged files
            log.warning("%s: not readable (%s); starting from the beginning.", self.path, short_message(error))
            return None
        if owner != self.owner:
            raise ArtefactError(
                f"{self.path}: saved by another run, or with another build of the models that this run builds on; "
                "delete it to start from the beginning."
            )
        return state

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Raise `ArtefactError` if the state that the block restores does not fit this training."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise ArtefactError(
                f"{self.path}: its state does not fit this training ({short_message(error)}); delete it to start from "
                "the beginning."
            ) from None

    def save_if_due(self, state: Callable[[], State]) -> bool:
        """Save the state if `seconds_between` have passed since the last save; return whether they have.

        If the job has received a termination signal, save it at once and raise `Interrupted`.
        """
        if self._must_end:
            self.save(state())
            raise Interrupted(f"received a termination signal; the state is saved in {self.path}")
        is_due = time.monotonic() - self._last_written >= self.seconds_between
        if is_due:
            self.save(state())
        return is_due

    def save(self, state: State) -> None:
        """Write the state atomically."""
        with atomic_write(self.path) as temporary:
            torch.save({"owner": self.owner, "state": dict(state)}, temporary)
        self._last_written = time.monotonic()

    @contextmanager
    def defer_signals(self) -> Iterator[None]:
        """While the block runs, defer termination signals: the next `save_if_due` saves the state and raises."""

        def remember(_signal: int, _frame: FrameType | None) -> None:
            self._must_end = True

        previous = {number: signal.signal(number, remember) for number in TERMINATION_SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def restore_tensors(parameters: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> None:
    """Copy saved tensors into parameters. Raises `ValueError` if a name, shape or type differs."""
    if differing := sorted(parameters.keys() ^ state.keys()):
        raise ValueError(f"{differing[0]} is not in both the state and the training")
    for name, parameter in parameters.items():
        saved = state[name]
        if saved.shape != parameter.shape or saved.dtype != parameter.dtype:
            actual, expected = ((tuple(tensor.shape), tensor.dtype) for tensor in (saved, parameter))
            raise ValueError(f"{name} is {actual}, expected {expected}")
        parameter.detach().copy_(saved)


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load an optimizer's state. Raises `ValueError` if a tensor in it differs in shape from its parameter."""
    optimizer.load_state_dict(dict(state))
    for parameter, tensors in optimizer.state.items():
        for name, tensor in tensors.items():
            if isinstance(tensor, torch.Tensor) and tensor.shape not in ((), parameter.shape):
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(parameter.shape)}")
