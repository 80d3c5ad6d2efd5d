"""Specifications: everything that decides the result of a run, in one file that its job reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corelib.errors import ArtefactError
from corelib.files.hashing import sha256_of_text
from corelib.files.json_files import read_json
from corelib.files.sealed_json import has_its_seal
from corelib.runs.layout import MANIFEST, RUN, RUNS
from corelib.runs.manifest import Manifest, read_manifest
from corelib.runs.stages import TRAINED

PARTS = {
    **dict.fromkeys(("stage", "slug", "digest"), str),
    **dict.fromkeys(("settings", "code", "packages", "inputs", "builds_on", "execution"), dict),
    "threads": int,
}
"""Of a specification."""


def read_specification(path: Path) -> dict[str, Any]:
    """The specification in a file.

    Raises `ArtefactError` if it is no specification, or does not have its own digest or its seal. The digest covers
    what decides the result; the seal covers the rest too: names of runs, places, and how the work is cut.

    What it says of other runs is their names, which become paths.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), kind) for key, kind in PARTS.items()):
        raise ArtefactError(f"{path}: not a specification; delete it and ask for the target again.")
    waits_for = content.get("after", {})
    if not isinstance(waits_for, dict):
        raise ArtefactError(f"{path}: not a specification; delete it and ask for the target again.")
    named = [*content["builds_on"].values(), *waits_for.values()]
    if not all(isinstance(name, str) and RUN.fullmatch(name) for name in named):
        raise ArtefactError(f"{path}: it names a run that can be none, expected STAGE/SLUG-DIGEST; delete it.")
    if content["builds_on"].keys() != content["inputs"].keys():
        raise ArtefactError(f"{path}: it does not say where all lies that it builds on; delete it.")
    if digest_of(content) != content["digest"]:
        raise ArtefactError(f"{path}: its content does not have its digest; delete it and ask for the target again.")
    if not has_its_seal(content):
        raise ArtefactError(f"{path}: its content does not have its seal; delete it and ask for the target again.")
    return content


def read_inputs(specification: Mapping[str, Any]) -> dict[str, Manifest]:
    """The manifests of the runs that a run builds on, by role. Raises `ArtefactError` as `read_input` does."""
    return {role: read_input(specification, role) for role in specification["builds_on"]}


def trained_behind(specification: Mapping[str, Any], inputs: Mapping[str, Manifest]) -> dict[str, str]:
    """The seal of every trained model behind a run, by the name of the model's run.

    Raises `ArtefactError` if two of its inputs were made with different builds of the same model.
    """
    names = specification["builds_on"]
    said = [(names[role], names[role], lies.seal) for role, lies in inputs.items() if lies.stage in TRAINED]
    said += [(names[role], model, seal) for role, lies in inputs.items() for model, seal in lies.trained.items()]
    found: dict[str, tuple[str, str]] = {}
    for name, model, seal in said:
        first, expected = found.setdefault(model, (name, seal))
        if seal != expected:
            old = str(RUNS / name) if first == model else f"{RUNS / first} and {RUNS / name}"
            raise ArtefactError(
                f"{old}: made with another build of {RUNS / model}, expected one and the same model behind all that "
                f"{specification['slug']} is made of; delete what `python -m corelib verify` says is of another build, "
                "and ask for the target again."
            )
    return {model: seal for model, (_, seal) in found.items()}


def read_input(specification: Mapping[str, Any], role: str) -> Manifest:
    """The manifest of one of them.

    Raises `ArtefactError` if there is none, or if it is of another run than the specification's digest vouches for.
    """
    if role not in specification["builds_on"]:
        raise ArtefactError(f"{specification['slug']}: it builds on no {role}, expected one.")
    manifest = read_manifest(RUNS / specification["builds_on"][role] / MANIFEST)
    if manifest.digest != (expected := specification["inputs"][role]):
        raise ArtefactError(
            f"{manifest.folder / MANIFEST}: it vouches for the run {manifest.digest[:12]}, expected "
            f"{str(expected)[:12]} as {role}; delete {manifest.folder} and ask for the target again."
        )
    return manifest


def digest_of(content: Mapping[str, Any]) -> str:
    """The sha256 of a specification's content in canonical JSON."""
    kept = {key: content[key] for key in ("stage", "settings", "threads", "code", "packages", "inputs")}
    return sha256_of_text(json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=True))
