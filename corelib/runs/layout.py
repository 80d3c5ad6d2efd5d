"""Folders of runs and results, and the names of their files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

REPOSITORY = Path(__file__).resolve().parents[2]
"""The folder of the Snakefile."""

MANIFEST = "manifest.json"

RUNS, RESULTS = Path("runs"), Path("results")

SPECIFICATION = "specification.json"

RUN = re.compile(r"[a-z0-9_]+/[a-z0-9_-]+-[0-9a-f]{12}")
"""Pattern of the name of a run."""

SHARDS = "shards"

RECORD = Path(MANIFEST).with_suffix(".provenance.json").name


def _checked_name(name: str) -> str:
    if not RUN.fullmatch(name):
        raise ValueError(f"{name[:60]!r} is not the name of a run, expected STAGE/SLUG-DIGEST")
    return name


RunName = Annotated[str, AfterValidator(_checked_name)]
"""The name of a run, `STAGE/SLUG-DIGEST`. It becomes a path, so a record with any other text is refused."""


def run_name(stage: str, slug: str, digest: str) -> str:
    """The name of a run, `STAGE/SLUG-DIGEST`, from the parts of its specification."""
    return f"{stage}/{slugify(slug)}-{digest[:12]}"


def slugify(text: str) -> str:
    """A text in lower case, with hyphens in place of all characters but letters, digits and `_`, for use in a path."""
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")
