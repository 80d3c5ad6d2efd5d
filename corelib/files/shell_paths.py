"""Paths that Snakemake passes to a shell, and those that break its command lines.

Snakemake writes the path of its Python interpreter into command lines without quotes. The path of the Snakefile is
written as a Python string literal, and on a cluster the whole command is put in double quotes again. `PYTHONPATH`,
through which scripts find this library, is a list separated by colons.

`make env` calls `python -m corelib.files.shell_paths FOLDER` before it creates an environment in that folder.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from corelib.files.text import printable

SHELL_SPECIAL = re.compile(r"[ \t\n\\'\"`$&|;<>()*?\[]|\{[^{}]*(,|\.\.)[^{}]*\}")
"""Characters, and brace expansions, that a shell does not take as part of an unquoted word."""

CHARACTER_NAMES = {
    " ": "a blank",
    "\t": "a tab",
    "\n": "a line break",
    "`": "a backtick",
    ":": "a colon",
    "'": "an apostrophe",
}


def path_faults(python: Path, repository: Path) -> Iterator[str]:
    """The reasons why no job can be started with this interpreter and this clone."""
    if match := SHELL_SPECIAL.search(str(python)):
        yield (
            f"{printable(str(python))}: its path contains {_in_words(match[0])}, which breaks Snakemake's command "
            "lines; move the clone, or create the environment elsewhere with `make env VENV=/some/folder` and run "
            "Snakemake from there"
        )
    if os.pathsep in str(repository):
        yield (
            f"{printable(str(repository))}: its path contains {_in_words(os.pathsep)}, which separates the entries of "
            "PYTHONPATH; move the clone"
        )


def cluster_path_fault(snakefile: Path) -> str | None:
    """The reason why the path of a Snakefile cannot be passed to a cluster's jobs; None if it can."""
    path = str(snakefile)
    broken = [mark for mark in path if mark in "$`\\" or not mark.isprintable()]
    if "'" in path and '"' in path:
        broken.append('"')
    if not broken:
        return None
    return (
        f"{printable(str(snakefile))}: its path contains {_in_words(broken[0])}, which breaks the commands that "
        "Snakemake submits to a cluster; move the clone"
    )


def _in_words(mark: str) -> str:
    return CHARACTER_NAMES.get(mark, f"`{mark}`" if mark.isprintable() else repr(mark))


def main() -> int:
    """Print the faults of the path of an environment that is not created yet; return the exit status."""
    python = Path(sys.argv[1]).absolute() / "bin/python"
    faults = list(path_faults(python, Path.cwd()))
    for fault in faults:
        print(f"Error: {fault}.", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
