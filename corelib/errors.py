"""Errors whose text is meant for the user of the pipeline."""

from __future__ import annotations

import signal
from collections.abc import Sequence


class UserError(Exception):
    """One sentence that names the file or the key, the value found, and what was expected.

    A job that ends in one prints the sentence alone; any other exception is a bug and keeps its traceback.
    """


class ConfigurationError(UserError):
    """A study that cannot be planned."""


class AssetError(UserError):
    """Something the user has to provide is missing, or is not what it should be."""


class ArtefactError(UserError):
    """A file that this pipeline made is missing, damaged, or belongs to something else."""


class DeviceError(UserError):
    """A device that a job was given cannot be used."""


LONGEST_REASON = 160
"""Characters of what is said of another program's error within one of our sentences."""


def reason_of(error: Exception) -> str:
    """What an error says, short and on one line."""
    return " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__


def first_line_of(error: Exception) -> str:
    """The first line of what an error says, short and without a full stop, for errors whose other lines are advice."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")[:LONGEST_REASON]


LONGEST_LISTED = 100
"""Characters of a name in a list of names."""


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first `most` of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(name[:LONGEST_LISTED] for name in names[:most]) + more


ASKING_TO_END = (signal.SIGTERM, signal.SIGINT)
"""What a scheduler sends some time before it kills, and what the terminal sends when the user presses Ctrl-C."""


class Interrupted(BaseException):
    """The job was asked to end and has saved its state; it goes on from there when it is started again.

    Not an `Exception`: nothing that handles errors on the way may take it for one.
    """
