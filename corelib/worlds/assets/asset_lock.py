"""Lock file: sha256 of each asset of the user, recorded on first use.

The lock file `assets.lock.json` is part of the configuration folder. Its keys are the paths that studies name, so two
studies may use different copies. `make assets` writes it; plans read it, and a run's address depends on its hashes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from corelib.errors import ArtefactError, AssetError
from corelib.files.hashing import files_below, sha256_of_path, sha256_of_text
from corelib.files.json_files import read_json, write_json
from corelib.settings.section import Section

LOCK_FILE = "assets.lock.json"
"""File name in the configuration folder."""

SHA256 = r"[0-9a-f]{64}"


class LockedAsset(Section):
    """An asset as it was locked.

    Attributes:
        sha256: sha256 of the file or folder; for images, the digest of their index.
        bytes: size in bytes.
        files: sha256 of each file in a folder; empty for a single file.
        source: origin, in words.
    """

    sha256: str = Field(pattern=f"^{SHA256}$")
    bytes: int
    files: dict[str, str]
    source: str


class Lock(Section):
    """Content of the lock file.

    Attributes:
        revisions: commit of each Hub repository, by kind and name.
        assets: trusted assets, by path as written in the study.
    """

    revisions: dict[str, str]
    assets: dict[str, LockedAsset]

    @property
    def sha256(self) -> dict[str, str]:
        """Sha256 of every locked asset, by path."""
        return {place: asset.sha256 for place, asset in self.assets.items()}

    def with_asset(self, place: str, asset: LockedAsset) -> Lock:
        """This lock with one more asset."""
        return Lock(revisions=self.revisions, assets={**self.assets, place: asset})

    def with_revision(self, repository: str, commit: str) -> Lock:
        """This lock with the commit of one more repository."""
        return Lock(revisions={**self.revisions, repository: commit}, assets=self.assets)


def read_lock(folder: Path) -> Lock:
    """The lock of a configuration folder, empty if there is no file. Raises `AssetError` if it is damaged."""
    path = folder / LOCK_FILE
    if not path.exists():
        return Lock(revisions={}, assets={})
    try:
        return Lock.model_validate(read_json(path))
    except (ArtefactError, ValidationError, OSError):
        raise AssetError(
            f"{path}: not readable as a lock file of assets; restore it as `make assets` wrote it, or delete it to "
            "trust the assets as they are now."
        ) from None


def write_lock(folder: Path, lock: Lock) -> None:
    """Write the lock of a configuration folder."""
    write_json(folder / LOCK_FILE, lock.model_dump(mode="json"))


def asset_path(name: str, places: Mapping[str, str]) -> str:
    """The path of an asset, or of a part of one such as `pipeline/unet`. It is the key in the lock."""
    asset, *part = name.split("/")
    return "/".join([places[asset], *part])


def lock_entry(path: Path, source: str) -> LockedAsset:
    """Lock entry for a file or folder in its current state."""
    if not path.is_dir():
        return LockedAsset(sha256=sha256_of_path(path), bytes=path.stat().st_size, files={}, source=source)
    files = {file.relative_to(path).as_posix(): sha256_of_path(file) for file in files_below(path)}
    lines = (f"{name} {sha}" for name, sha in files.items())
    size = sum(file.stat().st_size for file in files_below(path))
    return LockedAsset(sha256=sha256_of_text("\n".join(lines)), bytes=size, files=files, source=source)


def describe_difference(place: str, locked: LockedAsset, current: LockedAsset) -> str:
    """Describe how an asset differs from its lock entry; for a folder, the first file that differs."""
    for name in sorted({*locked.files, *current.files}):
        if locked.files.get(name) != current.files.get(name):
            if name not in current.files:
                return f"{place}/{name} is missing, expected it as locked"
            if name not in locked.files:
                return f"{place}/{name} is not locked, expected locked files only"
            return _hash_mismatch(f"{place}/{name}", locked.files[name], current.files[name])
    return _hash_mismatch(place, locked.sha256, current.sha256)


def _hash_mismatch(path: str, locked: str, current: str) -> str:
    return f"{path} has the sha256 {current[:12]}, expected {locked[:12]} as locked"
