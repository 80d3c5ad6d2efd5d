"""The lock: what the user's assets were when they were first trusted, and are ever after.

It lies beside the configuration as `assets.lock.json`, by the places that studies name, so that two studies may use
different copies. `make assets` writes it; plans read it, and a run's address depends on the hashes in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from corelib.errors import ArtefactError, AssetError
from corelib.files.hashing import files_below, sha256_of, sha256_of_text
from corelib.files.json_files import read_json, write_json
from corelib.settings.section import Section

LOCK = "assets.lock.json"
"""Below the configuration folder."""

SHA256 = r"[0-9a-f]{64}"


class LockedAsset(Section):
    """What lay at a place.

    Attributes:
        sha256: of the file or folder; of images, the digest of their index.
        bytes: how many there were.
        files: of a folder, the sha256 of each file in it.
        source: where it came from, in words.
    """

    sha256: str = Field(pattern=f"^{SHA256}$")
    bytes: int
    files: dict[str, str]
    source: str


class Lock(Section):
    """Everything that is locked.

    Attributes:
        revisions: the commit of each Hub repository, by its kind and name.
        assets: what is trusted, by its place as the study writes it.
    """

    revisions: dict[str, str]
    assets: dict[str, LockedAsset]

    @property
    def sha256(self) -> dict[str, str]:
        """The sha256 of every locked asset by its place."""
        return {place: asset.sha256 for place, asset in self.assets.items()}

    def with_asset(self, place: str, asset: LockedAsset) -> Lock:
        """The same lock, and one asset more."""
        return Lock(revisions=self.revisions, assets={**self.assets, place: asset})

    def with_revision(self, repository: str, commit: str) -> Lock:
        """The same lock, and the commit of one repository."""
        return Lock(revisions={**self.revisions, repository: commit}, assets=self.assets)


def read_lock(folder: Path) -> Lock:
    """The lock of a configuration folder, empty where there is none. Raises `AssetError` if it is damaged."""
    path = folder / LOCK
    if not path.exists():
        return Lock(revisions={}, assets={})
    try:
        return Lock.model_validate(read_json(path))
    except (ArtefactError, ValidationError, OSError):
        raise AssetError(
            f"{path}: not readable as a lock of assets, expected it as `make assets` wrote it; restore it, or delete "
            "it to trust the assets as they are now."
        ) from None


def write_lock(folder: Path, lock: Lock) -> None:
    """Write the lock of a configuration folder."""
    write_json(folder / LOCK, lock.model_dump(mode="json"))


def place_of(name: str, places: Mapping[str, str]) -> str:
    """The place of an asset, or of a part of one such as `pipeline/unet`."""
    asset, *part = name.split("/")
    return "/".join([places[asset], *part])


def as_it_is(path: Path, source: str) -> LockedAsset:
    """A file or folder as it can be locked now."""
    if not path.is_dir():
        return LockedAsset(sha256=sha256_of(path), bytes=path.stat().st_size, files={}, source=source)
    files = {file.relative_to(path).as_posix(): sha256_of(file) for file in files_below(path)}
    lines = (f"{name} {sha}" for name, sha in files.items())
    size = sum(file.stat().st_size for file in files_below(path))
    return LockedAsset(sha256=sha256_of_text("\n".join(lines)), bytes=size, files=files, source=source)


def difference(place: str, locked: LockedAsset, found: LockedAsset) -> str:
    """In words, what of an asset is not as it was locked; of a folder the first file that is not."""
    for name in sorted({*locked.files, *found.files}):
        if locked.files.get(name) != found.files.get(name):
            if name not in found.files:
                return f"{place}/{name} is missing, expected it as locked"
            if name not in locked.files:
                return f"{place}/{name} is there, expected only the files that are locked"
            return _two_hashes(f"{place}/{name}", locked.files[name], found.files[name])
    return _two_hashes(place, locked.sha256, found.sha256)


def _two_hashes(path: str, locked: str, found: str) -> str:
    return f"{path} has the sha256 {found[:12]}, expected {locked[:12]} as locked"
