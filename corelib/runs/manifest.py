"""Manifests: the sha256 of each file that a stage has written, and the facts that later stages read."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, InstanceOf

from corelib.errors import ArtefactError
from corelib.files.hashing import sha256_of_path
from corelib.files.json_files import JsonRecord, read_json
from corelib.files.paths import path_inside, resolve_links, unresolved_path_inside
from corelib.files.sealed_json import SealedRecord, parse_record
from corelib.runs.layout import MANIFEST, RunName


class ManifestRecord(SealedRecord):
    """The content of a manifest, wherever it is stored.

    Attributes:
        stage, digest: of the run.
        files: sha256 of each file or folder, by its path in the stage's folder.
        facts: values that later stages read.
        trained: seals of the trained models that the run builds on, by the names of the models' runs.
        inputs: seals of the runs from which a product was made, by name; empty for other stages.
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

    If it was read by `read_manifest`, access to a missing fact raises `ArtefactError` with the name of the file.

    Attributes:
        folder: folder of the stage; not stored in the file.
    """

    folder: Path = Field(exclude=True)

    def verified_external(self, path: str, sha256: str) -> Path:
        """The path of a file whose sha256 is a fact of the manifest, such as an asset, after verifying its sha256.

        `path` is relative to the stage's folder; links in it are followed. Raises `ArtefactError` if the file is
        missing or has another sha256, or if the path leads out of the folder other than by a link at its top.
        """
        resolved = resolve_links(self.place(path))
        if not resolved.exists():
            raise ArtefactError(
                f"{resolved}: missing, expected the file recorded in {self.folder / MANIFEST}; restore it."
            )
        if (actual := _sha256_of_readable(resolved)) != sha256:
            raise ArtefactError(
                f"{resolved}: its sha256 is {actual[:12]}, expected {sha256[:12]} as when it was adopted; restore the "
                f"old content, or delete {self.folder} to adopt the new content for every run that needs it."
            )
        return resolved

    def place(self, path: object) -> Path:
        """The path of a file that a fact names, without verification: in the stage's folder or behind one of its links.

        A run links to the user's own files at the top of its folder.
        """
        lexical = unresolved_path_inside(self.folder, path)
        top = self.folder / lexical.relative_to(self.folder).parts[0]
        return lexical if top.is_symlink() else path_inside(self.folder, path)

    def file(self, name: str) -> Path:
        """The path of a file or folder of the stage, after verifying its sha256.

        Raises `ArtefactError` if it is missing, damaged or not listed, or if it or a link in it leads out of the folder
        of the stage.
        """
        if name not in self.files:
            raise ArtefactError(f"{self.folder / MANIFEST}: it lists no file `{name}`, only {sorted(self.files)}.")
        path = path_inside(self.folder, name)
        if not path.exists():
            raise ArtefactError(f"{path}: the file is missing; delete {self.folder} and ask for the target again.")
        if path.is_dir():
            for link in (file for file in path.rglob("*") if file.is_symlink()):
                path_inside(self.folder, link.relative_to(self.folder).as_posix())
        if (actual := _sha256_of_readable(path)) != self.files[name]:
            raise ArtefactError(
                f"{path}: its sha256 is {actual[:12]}, but its manifest expects {self.files[name][:12]}; "
                f"the file is damaged: delete {self.folder} and ask for the target again."
            )
        return path


def _sha256_of_readable(path: Path) -> str:
    """The sha256 of a file or folder. Raises `ArtefactError` if it is not readable."""
    try:
        return sha256_of_path(path)
    except OSError as error:
        raise ArtefactError(f"{path}: not readable ({error.strerror or error}), expected a file.") from None


def manifest_content(
    folder: Path,
    stage: str,
    digest: str,
    files: list[str],
    facts: Mapping[str, Any],
    trained: Mapping[str, str],
    inputs: Mapping[str, str],
) -> ManifestRecord:
    """The manifest of files (or folders) in a stage's folder, with their present sha256.

    Args:
        folder: folder of the stage.
        stage, digest: of the run.
        files: paths relative to the folder.
        facts: values that later stages read.
        trained: seals of the trained models that the run builds on, by name.
        inputs: seals of the runs from which a product was made, by name.
    """
    hashes = {name: sha256_of_path(folder / name) for name in files}
    return ManifestRecord.sealed(
        stage=stage, digest=digest, files=hashes, facts=dict(facts), trained=dict(trained), inputs=dict(inputs)
    )


def matches_files(manifest: ManifestRecord, folder: Path, digest: str) -> bool:
    """Whether a manifest has the digest of a run, and every file that it lists exists with its sha256."""
    try:
        hashes = manifest.files.items()
        return manifest.digest == digest and all(
            sha256_of_path(path_inside(folder, name)) == sha256 for name, sha256 in hashes
        )
    except (ArtefactError, OSError):
        return False


def read_manifest(path: Path) -> Manifest:
    """Read a manifest. Raises `ArtefactError` if it is missing or malformed, or if its seal does not match."""
    content = read_json(path, functools.partial(JsonRecord, source=path))
    return parse_record(content, Manifest, path, folder=path.parent)
