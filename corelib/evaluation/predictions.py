"""The table of predictions, one row per image. A separate module, so that counting never imports the classifiers."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from corelib.errors import ArtefactError
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
    """Read the table that `classify_images` wrote. Raises `ArtefactError` if it is damaged."""
    path = manifest.file(PREDICTIONS)
    try:
        with limited_reading():
            open_parquet(path, PREDICTION_COLUMNS)
            return pd.read_parquet(path)
    except UnreadableParquet as error:
        raise ArtefactError(f"{path}: not readable ({error}); delete it and ask for the target again.") from None
