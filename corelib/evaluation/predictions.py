"""Predictions as a table with a row an image; apart from the classifiers, so that counting never imports them."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from corelib.errors import ArtefactError
from corelib.files.parquet_files import UnreadableParquet, open_parquet, reading_within_bounds
from corelib.runs.manifest import Manifest

PREDICTIONS = "predictions.parquet"

COLUMNS = {
    "style": pa.string(),
    "object": pa.string(),
    "seed": pa.int64(),
    "predicted_style": pa.string(),
    "predicted_object": pa.string(),
    "flagged": pa.bool_(),
}
"""What is counted of an image."""


def read_predictions(manifest: Manifest) -> pd.DataFrame:
    """The table that `classify_images` wrote. Raises `ArtefactError` if it is damaged."""
    path = manifest.file(PREDICTIONS)
    try:
        with reading_within_bounds():
            open_parquet(path, COLUMNS)
            return pd.read_parquet(path)
    except UnreadableParquet as error:
        raise ArtefactError(f"{path}: not readable ({error}); delete it and ask for the target again.") from None
