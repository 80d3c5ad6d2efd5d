"""The runs that a run builds on: their manifests, and the trained models behind them."""

from __future__ import annotations

from collections.abc import Mapping

from corelib.errors import ArtefactError
from corelib.runs.layout import MANIFEST, RUNS
from corelib.runs.manifest import Manifest, read_manifest
from corelib.runs.specification import Specification
from corelib.runs.stages import TRAINED


def read_inputs(specification: Specification) -> dict[str, Manifest]:
    """The manifests of the runs that a run builds on, by role. Raises `ArtefactError` as `read_input` does."""
    return {role: read_input(specification, role) for role in specification.builds_on}


def read_input(specification: Specification, role: str) -> Manifest:
    """The manifest of the run that another one builds on in a role.

    Raises `ArtefactError` if there is none, or if it is of another run than the specification's digest vouches for.
    """
    if role not in specification.builds_on:
        raise ArtefactError(f"{specification.slug}: it builds on no {role}, expected one.")
    manifest = read_manifest(RUNS / specification.builds_on[role] / MANIFEST)
    if manifest.digest != (expected := specification.inputs[role]):
        raise ArtefactError(
            f"{manifest.folder / MANIFEST}: it vouches for the run {manifest.digest[:12]}, expected "
            f"{expected[:12]} as {role}; delete {manifest.folder} and ask for the target again."
        )
    return manifest


def trained_behind(specification: Specification, inputs: Mapping[str, Manifest]) -> dict[str, str]:
    """The seal of every trained model behind a run, by the name of the model's run.

    Raises `ArtefactError` if two of its inputs were made with different builds of the same model.
    """
    names = specification.builds_on
    said = [(names[role], names[role], lies.seal) for role, lies in inputs.items() if lies.stage in TRAINED]
    said += [(names[role], model, seal) for role, lies in inputs.items() for model, seal in lies.trained.items()]
    found: dict[str, tuple[str, str]] = {}
    for name, model, seal in said:
        first, expected = found.setdefault(model, (name, seal))
        if seal != expected:
            old = str(RUNS / name) if first == model else f"{RUNS / first} and {RUNS / name}"
            raise ArtefactError(
                f"{old}: made with another build of {RUNS / model}, expected one and the same model behind all that "
                f"{specification.slug} is made of; delete what `python -m corelib verify` says is of another build, "
                "and ask for the target again."
            )
    return {model: seal for model, (_, seal) in found.items()}
