"""Errors of the input functions of rules, in one sentence."""

from __future__ import annotations

import errno
import functools
import inspect
import sys
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

from corelib.errors import UserError
from corelib.files.atomic import FILE_SYSTEM_ERRORS

PERMISSION_ERRORS = {errno.EACCES, errno.EPERM}

Asked = ParamSpec("Asked")

Answer = TypeVar("Answer")


def stop_on_user_error(function: Callable[Asked, Answer]) -> Callable[Asked, Answer]:
    """Decorate a function so that Snakemake stops with the sentence of a `UserError` instead of a traceback.

    Missing space and missing permissions are reported in the same way.
    """

    @functools.wraps(function)
    def guarded(*args: Asked.args, **kwargs: Asked.kwargs) -> Answer:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            stop(str(error))
        except OSError as error:
            if error.errno in PERMISSION_ERRORS:
                stop(
                    f"{error.filename}: {error.strerror}, expected your own file or folder; a clone belongs to one "
                    "user, so make your own."
                )
            if error.errno not in FILE_SYSTEM_ERRORS:
                raise
            stop(f"{error.filename}: {error.strerror}; free space or correct the permissions.")

    # Snakemake asks for the parameters of an input function many times for each job; without this attribute, Python
    # computes them again each time.
    guarded.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return guarded


@functools.cache  # Snakemake may call the function again while it stops; print the sentence only once
def _print_once(sentence: str) -> None:
    print(f"\nError: {sentence}\n", file=sys.stderr, flush=True)


def stop(sentence: str) -> NoReturn:
    """Print one sentence and end Snakemake with exit status 1."""
    _print_once(sentence)
    raise SystemExit(1)
