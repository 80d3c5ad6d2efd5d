"""Errors whose text is meant for the user of the pipeline."""

from __future__ import annotations

import signal
from collections.abc import Sequence


class UserError(Exception):
    """One sentence with the file or the key, the value, and what was expected.

    A job that ends with a `UserError` prints only the sentence. Any other exception is a bug and keeps its traceback.
    """


class ConfigurationError(UserError):
    """The study cannot be planned from its configuration."""


class AssetError(UserError):
    """An asset that the user must provide is missing or invalid."""


class ArtefactError(UserError):
    """A file written by this pipeline is missing, damaged, or belongs to something else."""


class DeviceError(UserError):
    """The device assigned to a job cannot be used."""


MAX_REASON_LENGTH = 160
"""Maximum number of characters that an error sentence quotes from another program's error."""


def short_message(error: Exception) -> str:
    """The message of an error, shortened and on one line."""
    return " ".join(str(error).split())[:MAX_REASON_LENGTH] or type(error).__name__


def first_line_of(error: Exception) -> str:
    """The first line of what an error says, short and without a full stop, for errors whose other lines are advice."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")[:MAX_REASON_LENGTH]


LONGEST_LISTED = 100
"""Characters of a name in a list of names."""


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first `most` of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(name[:LONGEST_LISTED] for name in names[:most]) + more


TERMINATION_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""Termination signals: a scheduler sends SIGTERM some time before it kills; the terminal sends SIGINT on Ctrl-C."""


class Interrupted(BaseException):
    """The job received a termination signal and saved its state; it resumes from there when it is restarted.

    Derived from `BaseException`, so that no handler of `Exception` catches it.
    """
