"""Free space on the disk, compared with the space that forecasts need."""

from __future__ import annotations

import shutil

from corelib.costs.forecast import Forecast
from corelib.errors import ConfigurationError
from corelib.files.paths import nearest_existing
from corelib.files.text import format_bytes
from corelib.runs.layout import RUNS


def check_disk_space(*needed: Forecast) -> None:
    """Raise `ConfigurationError` if this disk has too little free space for the results of the forecasts."""
    disk = sum(forecast.work.disk for forecast in needed)
    if disk > free_bytes():
        raise ConfigurationError(
            f"{RUNS.absolute()}: results need about {format_bytes(disk)}, but {format_bytes(free_bytes())} are free; "
            "free some space, or work in a clone on a larger disk."
        )


def free_bytes() -> int:
    """Free space on the disk of the runs, in bytes."""
    return shutil.disk_usage(nearest_existing(RUNS)).free
