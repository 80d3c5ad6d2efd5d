"""`python -m corelib COMMAND`: what looks after the product but builds no result."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from corelib.errors import UserError
from corelib.shipping import ship_world

CONFIGURATION = Path(__file__).resolve().parent.parent / "config"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status. What is wrong is said in one sentence."""
    parser = argparse.ArgumentParser(prog="python -m corelib", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    ship = commands.add_parser("ship", help="put the world that a study has trained here in place of the shipped one")
    ship.add_argument("study", help="a study with world.pretrained: false, built in this working directory")
    asked = parser.parse_args(arguments)
    try:
        print(ship_world(asked.study, CONFIGURATION))
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
