"""The entry point of `python -m corelib`: assembles the commands, runs one of them, and prints its error."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Protocol

from corelib.commands import (
    assets,
    clean,
    export,
    jobs,
    logs,
    plan,
    preflight,
    products,
    schema,
    ship,
    study,
    verify,
    why,
)
from corelib.errors import UserError
from corelib.runs.environment import remove_user_packages
from corelib.runs.layout import REPOSITORY
from corelib.version import VERSION

DESCRIPTION = "The commands of `python -m corelib`: they inspect, plan, check and clean, and build no result."


class Command(Protocol):
    """A command is a module of this package with these names. Its name is that of the module.

    Attributes:
        HELP: purpose of the command, without a capital letter at the beginning or a full stop at the end.
    """

    __name__: str
    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of the command to its parser."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the command and return the exit status. Raises `UserError` if it fails."""


COMMANDS: tuple[Command, ...] = (
    preflight,
    plan,
    assets,
    jobs,
    logs,
    why,
    verify,
    clean,
    export,
    products,
    study,
    schema,
    ship,
)
"""All commands, in the order in which the help lists them."""

BROKEN_PIPE_STATUS = 141
"""Exit status of a command whose reader, such as `head`, has closed the pipe: the same as after SIGPIPE."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status. Prints a `UserError` as one sentence."""
    remove_user_packages(REPOSITORY)
    parsed = _parser().parse_args(arguments)
    command: Command = parsed.command
    try:
        status = command.run(parsed)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads the rest of the output
        return BROKEN_PIPE_STATUS
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Error: interrupted; finished work is kept: run the same command again to continue.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m corelib", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"corelib {VERSION}")
    commands = parser.add_subparsers(required=True)
    for command in COMMANDS:
        name, help_ = command.__name__.rpartition(".")[2], command.HELP
        added = commands.add_parser(name, help=help_, description=f"{help_[0].upper()}{help_[1:]}.")
        added.set_defaults(command=command)
        command.add_arguments(added)
    return parser
