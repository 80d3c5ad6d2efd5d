"""`python -m corelib schema`: print the JSON schema of a study's file, for `config/study.schema.json`."""

from __future__ import annotations

import argparse
import json

from corelib.study.json_schema import overlay_schema

HELP = "print the JSON schema of a study's file, with which editors complete and check it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the command has no arguments."""


def run(arguments: argparse.Namespace) -> int:
    """Print the schema."""
    print(json.dumps(overlay_schema(), indent=2))
    return 0
