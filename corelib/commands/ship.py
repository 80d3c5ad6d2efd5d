"""`python -m corelib ship`: replace the world that the repository ships by one that a study has trained.

`config/pretrained/` contains the models and `world.json`, which records their sha256, the leaves of the configuration
with which they were trained, and the provenance of each training.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corelib.commands.arguments import CONFIGURATION
from corelib.errors import ArtefactError, ConfigurationError
from corelib.files.atomic import atomic_folder
from corelib.files.hashing import sha256_of_path
from corelib.files.json_files import write_json
from corelib.runs.manifest import read_manifest
from corelib.runs.provenance_record import Provenance, provenance_path, read_provenance
from corelib.runs.run import Run
from corelib.study.loading import load_study
from corelib.study.plan import Plan
from corelib.study.shipped_world import RECORD_FILE, digest_of_drawing, leaves_of_world
from corelib.study.study_files import study_file, workflow_folder
from corelib.study.targets import targets_of
from corelib.study.worlds import MiniatureRuns

HELP = "replace the shipped world with one that a study has trained here"

UNSHIPPED_FIELDS = (
    "host",
    "node",
    "scheduler_job",
    "visible_devices",
    "earlier_attempts",
    "manifest",
    "log",
    "records",
    "seal",
)
"""Fields of a provenance record that are not shipped: they describe a machine, or are in the shipped record anyway."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `study`."""
    parser.add_argument("study", help="a study with world.pretrained: false, built in this working directory")


def run(arguments: argparse.Namespace) -> int:
    """Replace the shipped world, and print its folder."""
    print(os.path.relpath(ship_world(arguments.study, CONFIGURATION)))
    return 0


def ship_world(name: str, configuration: Path) -> Path:
    """Replace the shipped world by the one that the study `name` has trained, and return its folder.

    Raises `ConfigurationError` if the study trains no world, and `ArtefactError` if the world is not built here or was
    built by code that was not committed.
    """
    study = load_study(name, configuration)
    if study.world.kind != "miniature" or study.takes_shipped_world:
        raise ConfigurationError(
            f"{study_file(name, configuration)}: it trains no world, expected world.pretrained: false."
        )
    world = Plan(name, study, published=[]).world
    assert isinstance(world, MiniatureRuns), "the world of a study of the miniature"
    runs = {"pipeline": world.pipeline(), "style": world.classifier("style"), "object": world.classifier("object")}
    if missing := [run for run in runs.values() if not run.manifest.exists()]:
        raise ArtefactError(
            f"{missing[0].manifest}: missing, because the world of the study {name} is not built; ask for "
            f"{targets_of(name, study)[0]} first."
        )
    manifests = {role: read_manifest(run.manifest) for role, run in runs.items()}
    facts = dict(manifests["pipeline"].facts)
    facts["classifiers"] = {
        label: {**manifests[label].facts["classifiers"][label], "weights": f"{label}.pth"}
        for label in ("style", "object")
    }
    provenance = _provenance(runs)
    if unclean := [run for run, record in provenance.items() if str(record["commit"]).endswith("+")]:
        raise ArtefactError(
            f"runs/{unclean[0]}: built by code that was not committed; commit the code, run `python -m corelib clean "
            f"{unclean[0]} --delete`, and build the world again."
        )
    shipped = workflow_folder(configuration) / RECORD_FILE.parent
    with atomic_folder(shipped) as folder:
        shutil.copytree(manifests["pipeline"].file("pipeline"), folder / "pipeline")
        for label in ("style", "object"):
            shutil.copyfile(manifests[label].file("classifier.pth"), folder / f"{label}.pth")
        files = {path.name: sha256_of_path(path) for path in sorted(folder.iterdir())}
        record = {
            "files": files,
            "facts": facts,
            "leaves": leaves_of_world(study),
            "drawing": digest_of_drawing(),
            "provenance": provenance,
        }
        write_json(folder / RECORD_FILE.name, record)
    return shipped


def _provenance(runs: Mapping[str, Run]) -> dict[str, Any]:
    """The provenance records of all runs behind the world, each with the facts of its manifest."""
    behind = {name: run for shipped in runs.values() for name, run in shipped.with_all_inputs().items()}
    records = {}
    for name, run in sorted(behind.items()):
        record = _record(path := provenance_path(run.manifest), name)
        if record is None:
            raise ArtefactError(
                f"{path}: missing, expected the provenance record of {name}; run `python -m corelib clean {name} "
                "--delete` and ask for the target again."
            )
        facts = read_manifest(run.manifest).facts
        records[name] = {
            **{key: value for key, value in record.content.items() if key not in UNSHIPPED_FIELDS},
            "facts": facts,
        }
    return records


def _record(path: Path, name: str) -> Provenance | None:
    """The provenance record of the run `name`; None if it is missing.

    Raises `ArtefactError` if it is damaged.
    """
    if not path.exists():
        return None
    try:
        return read_provenance(path)
    except ArtefactError:
        raise ArtefactError(
            f"{path}: the provenance record of {name} is damaged; run `python -m corelib clean {name} --delete` and "
            "ask for the target again."
        ) from None
