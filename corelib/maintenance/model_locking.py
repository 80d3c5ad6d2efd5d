"""`make assets` for the models of the user's own: checks and locks them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from corelib.errors import ArtefactError, AssetError
from corelib.files.placeholders import check_no_placeholders
from corelib.files.text import counted, format_bytes
from corelib.maintenance.missing_places import missing_place
from corelib.unlearning.given_model import check_given_model
from corelib.worlds.assets.asset_inspection import read_error_message
from corelib.worlds.assets.asset_lock import (
    LOCK_FILE,
    LockedAsset,
    describe_difference,
    lock_entry,
    read_lock,
    write_lock,
)
from corelib.worlds.assets.presence import MAKE_ASSETS_ADVICE


def lock_models(
    paths: Mapping[str, str], unet_folder: Path | None, configuration: Path, say: Callable[[str], None]
) -> None:
    """Check and lock each model that is not locked, and compare the others with the lock.

    Args:
        paths: the path of each model, by the key in the study that names it.
        unet_folder: the diffusers folder of the base model's U-Net; None if it is not on the disk yet, and the job
            that adopts a model compares it with the U-Net.
        configuration: folder of the lock.
        say: function that shows a line to the user.

    Raises `AssetError` with the faults of all models.
    """
    faults = []
    for key, place in paths.items():
        say(f"Checking {place}")
        lock = read_lock(configuration)
        current, fault = _inspect(key, place, lock.assets.get(place), unet_folder, configuration)
        if fault is not None:
            faults.append(fault)
        elif current is not None and place not in lock.assets:
            write_lock(configuration, lock.with_asset(place, current))
            say(f"  locked: {format_bytes(current.bytes)}, sha256 {current.sha256[:12]}")
    if faults:
        raise AssetError(f"{'; '.join(faults)}.")
    say(f"{counted(len(paths), 'model')}, as in {configuration / LOCK_FILE}.")


def model_faults(paths: Mapping[str, str], unet_folder: Path | None, configuration: Path) -> Iterator[str]:
    """The fault of each model that is missing, not locked, or does not fit, without final period.

    Args:
        paths, unet_folder, configuration: as in `lock_models`.
    """
    lock = read_lock(configuration)
    for key, place in paths.items():
        _, fault = _inspect(key, place, lock.assets.get(place), unet_folder, configuration)
        if fault is not None:
            yield fault
        elif place not in lock.assets:
            yield f"{place} is not locked yet, so its content cannot be verified{MAKE_ASSETS_ADVICE}"


def _inspect(
    key: str, place: str, locked: LockedAsset | None, unet_folder: Path | None, configuration: Path
) -> tuple[LockedAsset | None, str | None]:
    """The present lock entry of a model, and its fault, without final period; one of them is None."""
    path = Path(place)
    if not path.exists():
        return None, missing_place(key, place)
    try:
        check_no_placeholders(path)
        current = lock_entry(path, "the user's own model")
        if locked is not None and locked.sha256 != current.sha256:
            return None, (
                f"{describe_difference(place, locked, current)}; restore it, or remove the entry {place!r} from "
                f"{configuration / LOCK_FILE} to trust the present content"
            )
        if unet_folder is not None and unet_folder.exists():
            check_given_model(path, unet_folder, values=locked is None)
    except (AssetError, ArtefactError) as error:
        return None, str(error).removesuffix(".")
    except OSError as error:
        return None, read_error_message(error, path)
    return current, None
