"""Where runs and results are stored, and the names of their files."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
"""The folder of the Snakefile."""

MANIFEST = "manifest.json"

RUNS, RESULTS = Path("runs"), Path("results")

SPECIFICATION = "specification.json"

RUN = re.compile(r"[a-z0-9_]+/[a-z0-9_-]+-[0-9a-f]{12}")
"""What the name of a run is like."""

SHARDS = "shards"

RECORD = Path(MANIFEST).with_suffix(".provenance.json").name
