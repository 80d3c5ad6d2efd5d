"""Evaluated runs with chosen counts, and rows of tables that show them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from support import records

from corelib.evaluation.metrics import CELLS
from corelib.evaluation.predictions import PREDICTIONS, write_predictions
from corelib.files.hashing import sha256_of_path
from corelib.files.json_files import write_json
from corelib.runs.manifest import Manifest
from corelib.settings.reports import EvaluatedSeed, TableRow

ESD = {"UA": (29, 30), "IRA": (140, 150), "CRA": (170, 180), "FID": 40.0, "FID_of_original": 30.0}
CORE = {"UA": (28, 30), "IRA": (147, 150), "CRA": (173, 180), "FID": 30.0, "FID_of_original": 30.0}


def cells(folder: Path, numbers: dict, flagged: int = 0, diverged_at: int | None = None) -> Manifest:
    """The manifest of an evaluated run in `folder`."""
    counts = {name: {"k": numbers[name][0], "n": numbers[name][1]} for name in ("UA", "IRA", "CRA")}
    distances = {name: numbers[name] for name in ("FID", "FID_of_original")}
    others = {"flagged": flagged, "diverged_at": diverged_at, "forget": ["Amber"]}
    write_json(folder / CELLS, {**counts, **distances, **others})
    write_predictions(predictions(*(numbers[name] for name in ("UA", "IRA", "CRA"))), folder / PREDICTIONS)
    files = {name: sha256_of_path(folder / name) for name in (CELLS, PREDICTIONS)}
    return records.manifest(folder, files, stage="cells")


def predictions(ua: tuple[int, int], ira: tuple[int, int], cra: tuple[int, int]) -> pd.DataFrame:
    """Predictions with these counts; the first k images that an accuracy counts are right."""
    (forgotten, num_forget), (retained, num_retain), (recognised, _) = ua, ira, cra
    return pd.DataFrame(
        {
            "style": ["Amber"] * num_forget + ["Blue"] * num_retain,
            "object": ["Cats"] * (num_forget + num_retain),
            "seed": range(num_forget + num_retain),
            "predicted_style": [
                *("Blue" if at < forgotten else "Amber" for at in range(num_forget)),
                *("Blue" if at < retained else "Amber" for at in range(num_retain)),
            ],
            "predicted_object": ["Cats" if at < recognised else "Dogs" for at in range(num_forget + num_retain)],
            "flagged": False,
        }
    )


def row(name: str, title: str, task: str = "Forget01", seeds: Sequence[int | None] = (0,)) -> TableRow:
    evaluated = [EvaluatedSeed(seed=seed, cells=role(task, name, seed)) for seed in seeds]
    anchors = {} if name == "original" else {"Amber": ["Blue"]}
    return TableRow(task=task, row=name, title=title, seeds=evaluated, is_original=name == "original", anchors=anchors)


def role(task: str, name: str, seed: int | None) -> str:
    return f"{task}/{name}/{seed}"
