"""Manifests: the sha256 of each file that a stage has written, and the facts that later stages read."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, InstanceOf

from corelib.errors import ArtefactError
from corelib.files.hashing import sha256_of
from corelib.files.json_files import Record, read_json
from corelib.files.paths import below, followed, named_below
from corelib.files.sealed_json import SealedRecord, record_in
from corelib.runs.layout import MANIFEST, RunName


class ManifestRecord(SealedRecord):
    """What a manifest says, wherever it is stored.

    Attributes:
        stage, digest: of the run.
        files: sha256 of each file or folder, by its path in the stage's folder.
        facts: values that later stages read.
        trained: seals of the trained models behind the run, by the names of the models' runs.
        inputs: seals of the runs that a product was put together from, by name; empty for other stages.
    """

    KIND: ClassVar[str] = "manifest"

    stage: str
    digest: str
    files: dict[str, str]
    facts: InstanceOf[dict[str, Any]]
    trained: dict[RunName, str]
    inputs: dict[RunName, str]


class Manifest(ManifestRecord):
    """A manifest in the folder of its stage.

    A fact that is missing is an `ArtefactError` that names the file, if the manifest was read by `read_manifest`.

    Attributes:
        folder: of the stage; not stored in the file.
    """

    folder: Path = Field(exclude=True)

    def outside(self, path: str, sha256: str) -> Path:
        """The path of something that the stage vouches for by a fact, an asset say, after checking its bytes.

        `path` is relative to the stage's folder, and the links in it are followed. Raises `ArtefactError` if it leads
        elsewhere than a link of the folder itself does, or the bytes are other ones.
        """
        found = followed(self.place(path))
        if not found.exists():
            raise ArtefactError(f"{found}: missing, expected what {self.folder / MANIFEST} vouches for.")
        if (sha := _sha256_or_reason(found)) != sha256:
            raise ArtefactError(
                f"{found}: its sha256 is {sha[:12]}, expected {sha256[:12]} as when it was taken into use; put the old "
                f"content back, or delete {self.folder} to take the new one into use under every run that needs it."
            )
        return found

    def place(self, path: object) -> Path:
        """Where something lies that a fact names, unchecked: in the stage's folder, or where a link of it leads.

        The links at the top of a folder are those by which a run takes the user's own files into use.
        """
        lexical = named_below(self.folder, path)
        top = self.folder / lexical.relative_to(self.folder).parts[0]
        return lexical if top.is_symlink() else below(self.folder, path)

    def file(self, name: str) -> Path:
        """The path of one of the stage's files, after checking that its bytes are the ones vouched for.

        Raises `ArtefactError` if they are not, or if the file or a link in it leads out of the stage's folder.
        """
        if name not in self.files:
            raise ArtefactError(
                f"{self.folder / MANIFEST}: it vouches for no file `{name}`, only {sorted(self.files)}."
            )
        path = below(self.folder, name)
        if not path.exists():
            raise ArtefactError(f"{path}: the file is missing; delete {self.folder} and ask for the target again.")
        if path.is_dir():
            for link in (file for file in path.rglob("*") if file.is_symlink()):
                below(self.folder, link.relative_to(self.folder).as_posix())
        if (found := _sha256_or_reason(path)) != self.files[name]:
            raise ArtefactError(
                f"{path}: its sha256 is {found[:12]}, but its manifest expects {self.files[name][:12]}; "
                f"the file is damaged: delete {self.folder} and ask for the target again."
            )
        return path


def _sha256_or_reason(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise ArtefactError(f"{path}: not readable ({error.strerror or error}), expected a file.") from None


def vouched_for(
    folder: Path,
    stage: str,
    digest: str,
    files: list[str],
    facts: Mapping[str, Any],
    trained: Mapping[str, str],
    inputs: Mapping[str, str],
) -> ManifestRecord:
    """A manifest over the named files (or folders) in a stage's folder, as they are now.

    Args:
        folder: of the stage.
        stage, digest: of the run.
        files: paths in the folder.
        facts: values that later stages read.
        trained: seals of the trained models behind the run, by name.
        inputs: seals of the runs that a product was put together from, by name.
    """
    hashes = {name: sha256_of(folder / name) for name in files}
    return ManifestRecord.sealed(
        stage=stage, digest=digest, files=hashes, facts=dict(facts), trained=dict(trained), inputs=dict(inputs)
    )


def is_still_true(manifest: ManifestRecord, folder: Path, digest: str) -> bool:
    """Whether a manifest belongs to a run and every file is there with the bytes it vouches for."""
    try:
        hashes = manifest.files.items()
        return manifest.digest == digest and all(sha256_of(below(folder, name)) == sha256 for name, sha256 in hashes)
    except (ArtefactError, OSError):
        return False


def read_manifest(path: Path) -> Manifest:
    """Read a manifest. Raises `ArtefactError` if it is missing or malformed, or if its seal does not match."""
    content = read_json(path, functools.partial(Record, source=path))
    return record_in(content, Manifest, path, folder=path.parent)
