"""Export: results in the form that other programs expect, by copies that depend on nothing here."""

from __future__ import annotations

import shutil
from pathlib import Path

from corelib.errors import ConfigurationError
from corelib.files.atomic import folder_written_whole
from corelib.files.json_files import write_json
from corelib.models.base_model import BaseModel
from corelib.models.delta import DELTA, load_delta
from corelib.models.pipeline_folder import save_pipeline
from corelib.runs.layout import MANIFEST, RUNS, SPECIFICATION
from corelib.runs.manifest import Manifest, read_manifest
from corelib.runs.specification import read_specification
from corelib.runs.upstream import read_input
from corelib.sampling.collection import sampled_images
from corelib.settings.ddim import Switches

ORIGIN = "corelib.json"
"""In an exported folder: which run it is from."""

PAPERS_SAMPLER = Switches(steps_offset=1, set_alpha_to_one=False, clip_sample=False, timestep_spacing="leading")
"""As `sampling.scheduler` of the paper's study has it. A delta may be sampled by several studies, and names none."""


def export_model(run: str, folder: Path) -> None:
    """Write an unlearned model as a diffusers folder that `StableDiffusionPipeline.from_pretrained` loads.

    It is the base model with the run's delta in its U-Net, in fp32, and with DDIM as the paper's study samples. In how
    many steps, and how strongly guided, its user says.

    Args:
        run: of the stage `unlearning`; its name, or the beginning of it.
        folder: which is not there yet.

    Raises `ConfigurationError` if there is no such run, or something in the way, `ArtefactError` or `AssetError` if
    what it needs is damaged.
    """
    unlearned = _run("unlearning", run, folder)
    world = read_input(read_specification(unlearned.folder / SPECIFICATION), "pipeline")
    base = BaseModel(world)
    delta = unlearned.file(DELTA)
    unet = base.unet()
    load_delta(delta, unet, base.identity)
    with folder_written_whole(folder) as temporary:
        scheduler = base.scheduler(**PAPERS_SAMPLER.switches)
        save_pipeline(temporary, base.autoencoder(), base.text_encoder(), base.tokenizer(), unet, scheduler)
        write_json(
            temporary / ORIGIN, {"run": unlearned.folder.name, "base": base.identity, "delta": unlearned.files[DELTA]}
        )


def export_images(run: str, folder: Path) -> None:
    """Lay out a run's images flat as `STYLE_OBJECT_seedSEED.jpg`, as the benchmark's evaluator expects them.

    Args:
        run: of the stage `samples`; its name, or the beginning of it.
        folder: which is not there yet.

    Raises as `export_model` does.
    """
    samples = _run("samples", run, folder)
    paths = sampled_images(samples)
    with folder_written_whole(folder) as temporary:
        for path in paths.values():
            shutil.copyfile(path, temporary / path.name)


def _run(stage: str, asked: str, folder: Path) -> Manifest:
    """The one complete run of a stage that is called so."""
    if folder.exists():
        raise ConfigurationError(f"{folder}: it is there already, expected the name of a new folder.")
    beginning = asked.rstrip("/").split("/")[-1]
    known = sorted(path.parent.name for path in (RUNS / stage).glob(f"*/{MANIFEST}"))
    found = [name for name in known if name == beginning] or [name for name in known if name.startswith(beginning)]
    if len(found) != 1:
        there = f"{len(found)} complete runs of the stage `{stage}` are called so" if found else "there is no such run"
        choice = f"one of {', '.join(found or known)}" if known else "a complete one: ask Snakemake for a table first"
        raise ConfigurationError(f"{asked}: {there} in {RUNS / stage}, expected {choice}.")
    return read_manifest(RUNS / stage / found[0] / MANIFEST)
