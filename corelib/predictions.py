"""Predictions as a table with a row an image; apart from the classifiers, so that counting never imports them."""

from __future__ import annotations

import pandas as pd

from corelib.artefacts import Manifest
from corelib.errors import ArtefactError

PREDICTIONS = "predictions.parquet"


def read_predictions(manifest: Manifest) -> pd.DataFrame:
    """The table that `classify_images` wrote. Raises `ArtefactError` if it is damaged."""
    path = manifest.file(PREDICTIONS)
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path}: not readable ({error}); delete it and ask for the target again.") from None
