"""Paths that Snakemake gives to a shell: which of them the shell takes apart.

Snakemake writes the path of the Python that runs it into command lines as it is. The path of the Snakefile is spelt as
Python spells texts, and on a cluster the whole command stands in double quotes once more. `PYTHONPATH`, by which
scripts find this library, is a list with colons between its entries.

`python -m corelib.files.shell_paths FOLDER` is what `make env` asks before it makes an environment there.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from corelib.files.printable import printable

TAKEN_APART = re.compile(r"[ \t\n\\'\"`$&|;<>()*?\[]|\{[^{}]*(,|\.\.)[^{}]*\}")
"""What a shell does not take for a part of a word without quotes."""

IN_WORDS = {
    " ": "a blank",
    "\t": "a tab",
    "\n": "a line break",
    "`": "a backtick",
    ":": "a colon",
    "'": "an apostrophe",
}


def faults_of_places(python: Path, repository: Path) -> Iterator[str]:
    """Why no job can be started with an interpreter and a clone at these places, in words."""
    if found := TAKEN_APART.search(str(python)):
        yield (
            f"{printable(str(python))}: it has {_said(found[0])} in its path, which breaks the command lines that "
            "Snakemake makes of it, expected a path without; move the clone, or make the environment elsewhere by "
            "`make env VENV=/some/folder`, and call Snakemake from there"
        )
    if os.pathsep in str(repository):
        yield (
            f"{printable(str(repository))}: it has {_said(os.pathsep)} in its path, at which PYTHONPATH is divided, "
            "expected a path without; move the clone"
        )


def fault_on_cluster(snakefile: Path) -> str | None:
    """Why a cluster's job cannot be told where a Snakefile lies, in words."""
    path = str(snakefile)
    broken = [mark for mark in path if mark in "$`\\" or not mark.isprintable()]
    if "'" in path and '"' in path:
        broken.append('"')
    if not broken:
        return None
    return (
        f"{printable(str(snakefile))}: it has {_said(broken[0])} in its path, which breaks the commands that Snakemake "
        "gives to a cluster, expected a path without; move the clone"
    )


def _said(mark: str) -> str:
    return IN_WORDS.get(mark, f"`{mark}`" if mark.isprintable() else repr(mark))


def main() -> int:
    """Say what is wrong with the place of an environment that is not made yet; the exit status."""
    python = Path(sys.argv[1]).absolute() / "bin/python"
    faults = list(faults_of_places(python, Path.cwd()))
    for fault in faults:
        print(f"Error: {fault}.", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
