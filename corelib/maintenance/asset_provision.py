"""`make assets`: downloads missing assets of a study, and checks and locks all of them.

Run it once, with network access; nothing needs the network afterwards. Assets that a study has at another place are
used there and only locked. Locked assets are only compared with the lock.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from corelib.errors import AssetError
from corelib.files.paths import nearest_existing
from corelib.files.placeholders import check_no_placeholders
from corelib.files.text import format_bytes
from corelib.maintenance.missing_places import missing_place
from corelib.settings.assets import AdoptionStage
from corelib.study.study_files import workflow_folder
from corelib.worlds.assets.asset_inspection import AssetInspection, read_error_message
from corelib.worlds.assets.asset_lock import (
    LOCK_FILE,
    Lock,
    LockedAsset,
    asset_path,
    describe_difference,
    lock_entry,
    read_lock,
    write_lock,
)
from corelib.worlds.assets.concept_folders import find_concept_files
from corelib.worlds.assets.download import (
    RemoteFile,
    fetch_from_hub,
    fetch_from_url,
    list_files,
    load_sources,
    resolve_commit,
)
from corelib.worlds.assets.image_index import ImageKey, RequiredImages, read_index, write_index
from corelib.worlds.assets.index_building import check_may_be_written, index_images

IMAGES, PIPELINE = "images", "pipeline"

FAULTS_SUFFIX = ".faults.txt"
"""Suffix of the file with the faults of the images, beside their index; written only if there are any."""


class Provision:
    """One call of `make assets`.

    Args:
        assets: the assets that a study needs, and the path of each (`Plan.assets`).
        wanted: the images that the study needs.
        configuration: folder of the lock.
        photo_style: the style that captions call Photo; None for images of the user's own.
        compvis_weights: the weights of a CompVis file that the study uses.
        say: function that shows a line to the user.
    """

    def __init__(
        self,
        assets: tuple[AdoptionStage, Mapping[str, str]],
        wanted: RequiredImages,
        configuration: Path,
        photo_style: str | None,
        compvis_weights: Literal["raw", "ema"],
        say: Callable[[str], None],
    ) -> None:
        self.settings, self.places = assets
        self.wanted = wanted
        self.names = list(self.settings.sha256)
        self.configuration = configuration
        self.photo_style = photo_style
        self.compvis_weights = compvis_weights
        self.say = say
        self.sources = load_sources(workflow_folder(configuration))
        self.lock = read_lock(configuration)

    def make(self, again: bool) -> None:
        """Download missing assets, then lock or compare all of them.

        Args:
            again: whether to read all images again even if they are locked.

        Raises `AssetError`: before the first download, if an asset has no source, the disk has too little space, or the
        path of the index is that of another file; or at the end, if an asset is faulty.
        """
        if "image_index" in self.places:
            check_may_be_written(Path(self.places["image_index"]))
        self._fetch()
        faults = list(self._lock_or_compare(again))
        if faults:
            raise AssetError(f"{'; '.join(faults)}.")
        self.say(f"All {len(self.names)} assets match {self.configuration / LOCK_FILE}.")

    # Download

    def _fetch(self) -> None:
        missing = [name for name in self.places if name != "image_index" and self._is_missing(name)]
        unavailable = [name for name in missing if name not in self.sources or not self._is_at_its_source(name)]
        if PIPELINE in missing and Path(self.places[PIPELINE]).is_file():
            raise AssetError(
                f"world.assets.{PIPELINE} is {self.places[PIPELINE]}, a file, expected a diffusers folder with unet/, "
                "vae/ and the other parts; for a checkpoint in one file, set world.assets.compvis as well."
            )
        if unavailable:
            raise AssetError(f"{'; '.join(self._reason_unavailable(name) for name in unavailable)}.")
        listed: dict[str, tuple[str, list[RemoteFile]]] = {}
        for name in missing:
            source = self.sources[name]
            if source.hub is not None:
                commit = resolve_commit(source.hub, self.lock.revisions.get(source.hub.name))
                self._remember(self.lock.with_revision(source.hub.name, commit))
                listed[name] = commit, list_files(source, commit, self._unet)
        self._check_room(missing, listed)
        for name in missing:
            source = self.sources[name]
            self.say(f"{source.what}\n  from {source.origin}, licence: {source.licence}")
            unfinished = self._unfinished(name)
            unfinished.parent.mkdir(parents=True, exist_ok=True)
            unfinished.touch()
            if name in listed:
                fetch_from_hub(source, *listed[name], self.say)
            else:
                fetch_from_url(source)
            unfinished.unlink()

    @property
    def _unet(self) -> str:
        assert self.settings.unet is not None, "a study's assets include a pipeline"
        return self.settings.unet

    def _is_missing(self, name: str) -> bool:
        """Whether a part of an asset is missing, or its download was interrupted."""
        parts = [asset_path(part, self.places) for part in self.names if part.split("/")[0] == name]
        try:
            return self._unfinished(name).exists() or not all(Path(part).exists() for part in parts)
        except PermissionError as error:
            raise AssetError(f"world.assets.{name}: {read_error_message(error, Path(self.places[name]))}.") from None

    def _unfinished(self, name: str) -> Path:
        """A file that exists while the download of an asset is incomplete."""
        place = Path(self.places[name])
        return place.with_name(f".{place.name}.unfinished")

    def _is_at_its_source(self, name: str) -> bool:
        """Whether the study uses an asset where `make assets` stores it."""
        return name in self.sources and self.sources[name].place == self.places[name].rstrip("/")

    def _reason_unavailable(self, name: str) -> str:
        place = self.places[name]
        if place.startswith("~"):
            return f"world.assets.{name} is {place}, and ~ is not expanded; write the full path of the folder"
        if name not in self.sources:
            folder = workflow_folder(self.configuration)
            return f"{missing_place(f'world.assets.{name}', place)}, and {folder} has no source for it"
        if self.photo_style is None and name in (IMAGES, PIPELINE):  # the sources are those of the paper's world
            lacking = [part for part in self.names if part.startswith(f"{name}/") and Path(place).is_dir()]
            parts = [part.split("/")[1] for part in lacking if not Path(asset_path(part, self.places)).exists()]
            lacks = f"world.assets.{name} is {place}, which lacks {', '.join(parts)}"
            return lacks if parts else missing_place(f"world.assets.{name}", place)
        fault = f"world.assets.{name} is {place}, which lacks a part; put your own copy there"
        if not Path(place).exists():
            fault = f"{missing_place(f'world.assets.{name}', place)}; correct the path, or put your own copy there"
        return f"{fault}, or use {self.sources[name].place}, where `make assets` stores its downloads"

    def _check_room(self, missing: Iterable[str], listed: Mapping[str, tuple[str, list[RemoteFile]]]) -> None:
        """Raise `AssetError` if the disk has too little space for the missing assets."""
        needed = 0
        folder = Path.cwd()
        for name in missing:
            source = self.sources[name]
            folder = Path(source.folder)
            if name not in listed:
                needed += int(source.gigabytes * 1e9)
                continue
            for file in listed[name][1]:
                path = folder / file.name
                needed += 0 if path.is_file() and path.stat().st_size == file.size else file.size
        existing = nearest_existing(folder)
        free = shutil.disk_usage(existing).free
        if needed > free:
            raise AssetError(
                f"{existing}: {free / 1e9:.1f} GB are free, expected {needed / 1e9:.1f} GB for the download; free some "
                "space, or make `assets` a link to a larger disk."
            )

    # Locking

    def _lock_or_compare(self, again: bool) -> Iterator[str]:
        """Lock each asset that is not locked, and yield the faults of all assets."""
        for name in self.names:
            place = asset_path(name, self.places)
            self.say(f"Checking {place}")
            try:
                current = self._images(again) if name == IMAGES else self._file_or_folder(name)
            except AssetError as error:
                yield str(error).removesuffix(".")
                continue
            except OSError as error:
                yield read_error_message(error, Path(place))
                continue
            locked = self.lock.assets.get(place)
            if locked is not None and locked.sha256 != current.sha256:
                yield (
                    f"{describe_difference(place, locked, current)}; restore it, or remove the entry {place!r} from "
                    f"{self.configuration / LOCK_FILE} to trust the present content"
                )
            elif (fault := self._inspection(values=locked is None).fault(name)) is not None:
                yield fault
            elif locked is None:
                self._remember(self.lock.with_asset(place, current))
                self.say(f"  locked: {format_bytes(current.bytes)}, sha256 {current.sha256[:12]}")
        yield from self._inspection(values=False).pipeline_faults()

    def _inspection(self, values: bool) -> AssetInspection:
        """An inspection of the weights; it reads their values if `values`, which is done once, before locking."""
        paths = {name: Path(asset_path(name, self.places)) for name in self.names}
        return AssetInspection(self.settings, paths, values, self.compvis_weights)

    def _origin(self, name: str) -> str:
        asset = name.split("/")[0]
        source = self.sources.get(asset)
        if source is None or not self._is_at_its_source(asset):
            return "the user's own copy"
        if source.hub is None or source.hub.name not in self.lock.revisions:
            return source.origin
        return f"{source.hub.name} at {self.lock.revisions[source.hub.name]}"

    def _file_or_folder(self, name: str) -> LockedAsset:
        path = Path(asset_path(name, self.places))
        check_no_placeholders(path)
        return lock_entry(path, self._origin(name))

    def _images(self, again: bool) -> LockedAsset:
        """The lock entry of the images. Reads all images and writes their index, if they are not locked or `again`."""
        path, root = Path(self.places["image_index"]), Path(self.places[IMAGES])
        locked = self.lock.assets.get(self.places[IMAGES])
        if locked is not None and path.exists() and not again:
            index = read_index(path)
            if index.digest == locked.sha256:
                if missing := self.wanted.missing_from(index):
                    raise AssetError(self._reason_not_indexed(path, missing[0]))
                return locked
        threads, report = os.cpu_count() or 1, path.with_name(f"{path.name}{FAULTS_SUFFIX}")
        index = index_images(root, self.wanted, self.photo_style, threads, report, self.say)
        write_index(path, index)
        size = sum(place.size for place in index.places.values())
        return LockedAsset(sha256=index.digest, bytes=size, files={}, source=self._origin(IMAGES))

    def _reason_not_indexed(self, index: Path, key: ImageKey) -> str:
        """Why a study cannot use images that were locked for another study with fewer of them."""
        images, name = self.places[IMAGES], "/".join([key[0], *([key[1]] if self.wanted.has_objects else [])])
        if self.photo_style is None and (faults := find_concept_files(Path(images), self.wanted).faults):
            return "; ".join(faults)
        return (
            f"{images} is locked with the images of another study: {index} has no image {key[2]} of {name}; give this "
            f"study a link to the folder (`ln -s {images} ANOTHER_NAME`) as world.assets.images, or remove the entry "
            f"{images!r} from {self.configuration / LOCK_FILE} and the index to use more images in both."
        )

    def _remember(self, lock: Lock) -> None:
        if lock != self.lock:
            self.lock = lock
            write_lock(self.configuration, lock)
