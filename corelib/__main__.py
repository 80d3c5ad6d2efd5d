"""`python -m corelib COMMAND`: what looks after the product but builds no result."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from corelib.errors import UserError
from corelib.running import running_jobs
from corelib.shipping import ship_world
from corelib.studies import load_study
from corelib.workflow import targets_of

CONFIGURATION = Path(__file__).resolve().parent.parent / "config"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status. What is wrong is said in one sentence."""
    parser = argparse.ArgumentParser(prog="python -m corelib", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    ship = commands.add_parser("ship", help="put the world that a study has trained here in place of the shipped one")
    ship.add_argument("study", help="a study with world.pretrained: false, built in this working directory")
    products = commands.add_parser("products", help="the targets that are all tables and figures of a study")
    products.add_argument("study", help="`paper`, or a file's name in config/studies/")
    commands.add_parser("jobs", help="what is being computed now, where, and how far it is")
    asked = parser.parse_args(arguments)
    try:
        if asked.command == "ship":
            print(os.path.relpath(ship_world(asked.study, CONFIGURATION)))
        elif asked.command == "jobs":
            print("\n".join(map(str, running_jobs())) or "No job computes here now.")
        else:
            print(*targets_of(asked.study, load_study(asked.study, CONFIGURATION)))
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
