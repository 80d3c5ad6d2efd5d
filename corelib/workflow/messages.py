"""One-sentence errors from input functions of rules."""

from __future__ import annotations

import errno
import functools
import sys
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

from corelib.errors import UserError
from corelib.files.atomic import NO_ROOM

FORBIDDEN = {errno.EACCES, errno.EPERM}

Asked = ParamSpec("Asked")

Answer = TypeVar("Answer")


def in_one_sentence(function: Callable[Asked, Answer]) -> Callable[Asked, Answer]:
    """Let Snakemake stop with a user error's sentence instead of a traceback through its own code.

    A place without room is the user's to mend as well.
    """

    @functools.wraps(function)
    def guarded(*args: Asked.args, **kwargs: Asked.kwargs) -> Answer:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            stop(str(error))
        except OSError as error:
            if error.errno in FORBIDDEN:
                stop(
                    f"{error.filename}: {error.strerror}, expected a file or folder of yours; a clone belongs to one "
                    "user, so make one of your own."
                )
            if error.errno not in NO_ROOM:
                raise
            stop(f"{error.filename}: {error.strerror}, expected a place with room to write.")

    return guarded


@functools.cache  # Snakemake may ask again while it is already stopping; one sentence is enough
def _say(sentence: str) -> None:
    print(f"\nError: {sentence}\n", file=sys.stderr, flush=True)


def stop(sentence: str) -> NoReturn:
    """End Snakemake with one sentence and exit status 1."""
    _say(sentence)
    raise SystemExit(1)
