"""`python -m corelib COMMAND`."""

from __future__ import annotations

import sys

try:
    from corelib.commands.cli import main
except ModuleNotFoundError as absent:
    sys.exit(f"Error: {sys.executable} has no package {absent.name}, use .venv/bin/python, which `make env` creates.")

if __name__ == "__main__":
    sys.exit(main())
