"""The runs that a run builds on: their manifests, and the trained models behind them."""

from __future__ import annotations

from collections.abc import Mapping

from corelib.errors import ArtefactError
from corelib.runs.layout import MANIFEST, RUNS
from corelib.runs.manifest import Manifest, read_manifest
from corelib.runs.specification import Specification
from corelib.runs.stage_registry import TRAINED


def read_inputs(specification: Specification) -> dict[str, Manifest]:
    """The manifests of the runs that a run builds on, by role. Raises `ArtefactError` as `read_input` does."""
    return {role: read_input(specification, role) for role in specification.builds_on}


def read_input(specification: Specification, role: str) -> Manifest:
    """The manifest of the run that a run builds on in a role.

    Raises `ArtefactError` if there is none, or if its digest is not the one in the specification.
    """
    if role not in specification.builds_on:
        raise ArtefactError(f"{specification.slug}: it builds on no run in the role `{role}`, expected one.")
    manifest = read_manifest(RUNS / specification.builds_on[role] / MANIFEST)
    if manifest.digest != (expected := specification.inputs[role]):
        raise ArtefactError(
            f"{manifest.folder / MANIFEST}: it is the manifest of the run {manifest.digest[:12]}, expected "
            f"{expected[:12]} as {role}; delete {manifest.folder} and ask for the target again."
        )
    return manifest


def trained_behind(specification: Specification, inputs: Mapping[str, Manifest]) -> dict[str, str]:
    """The seal of every trained model that a run builds on, directly or indirectly, by the name of the model's run.

    Raises `ArtefactError` if two of its inputs were made with different builds of the same model.
    """
    names = specification.builds_on
    uses = [(names[role], names[role], found.seal) for role, found in inputs.items() if found.stage in TRAINED]
    uses += [(names[role], model, seal) for role, found in inputs.items() for model, seal in found.trained.items()]
    models: dict[str, tuple[str, str]] = {}
    for name, model, seal in uses:
        first, expected = models.setdefault(model, (name, seal))
        if seal != expected:
            inconsistent = str(RUNS / name) if first == model else f"{RUNS / first} and {RUNS / name}"
            raise ArtefactError(
                f"{inconsistent}: the inputs of {specification.slug} were built from different trainings of "
                f"{RUNS / model}; delete the runs that `python -m corelib verify` reports as made with another build, "
                "and ask for the target again."
            )
    return {model: seal for model, (_, seal) in models.items()}
