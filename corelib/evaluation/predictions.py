"""Tables of predictions, one row per image. A separate module, so that counting never imports the classifiers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from corelib.errors import ArtefactError
from corelib.files.atomic import atomic_write
from corelib.files.parquet_files import UnreadableParquet, limited_reading, open_parquet
from corelib.runs.manifest import Manifest

PREDICTIONS = "predictions.parquet"

PREDICTION_COLUMNS = {
    "style": pa.string(),
    "object": pa.string(),
    "seed": pa.int64(),
    "predicted_style": pa.string(),
    "predicted_object": pa.string(),
    "flagged": pa.bool_(),
}
"""Columns from which metrics are counted."""


def read_predictions(manifest: Manifest) -> pd.DataFrame:
    """Read the table in `PREDICTIONS`: of all images of a model from `classify_images`, or of a task's grid from
    `count_cells`. Raises `ArtefactError` if it is damaged."""
    path = manifest.file(PREDICTIONS)
    try:
        with limited_reading():
            open_parquet(path, PREDICTION_COLUMNS)
            return pd.read_parquet(path)
    except UnreadableParquet as error:
        raise ArtefactError(f"{path}: not readable ({error}); delete it and ask for the target again.") from None


def is_judged(predictions: pd.DataFrame, label: str) -> bool:
    """Whether the world has a classifier of a label, `style` or `object`; without one, its predictions are missing."""
    return not predictions[f"predicted_{label}"].isna().any()


def write_predictions(predictions: pd.DataFrame, path: Path) -> None:
    """Write a table of predictions; equal tables are equal files."""
    schema = pa.schema(list(PREDICTION_COLUMNS.items()))
    with atomic_write(path) as temporary:
        pq.write_table(pa.Table.from_pandas(predictions, schema, preserve_index=False), temporary)
