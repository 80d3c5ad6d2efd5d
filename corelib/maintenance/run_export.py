"""Export: copies of results in the form that other programs expect, independent of this folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from corelib.errors import ConfigurationError
from corelib.files.atomic import atomic_folder
from corelib.files.json_files import write_json
from corelib.maintenance.export_folder import check_is_new
from corelib.maintenance.run_files import matches_run
from corelib.models.base_model import BaseModel
from corelib.models.delta import DELTA_FILE, load_delta
from corelib.models.pipeline_folder import save_pipeline
from corelib.runs.input_runs import read_input
from corelib.runs.layout import MANIFEST, RUNS, SPECIFICATION
from corelib.runs.manifest import Manifest, read_manifest
from corelib.runs.model_stages import DELTA_STAGES
from corelib.runs.specification import read_specification
from corelib.sampling.collection import image_paths
from corelib.settings.ddim import DDIMConfig

ORIGIN_FILE = "corelib.json"
"""File in an exported folder that names the run."""

PAPER_SCHEDULER = DDIMConfig(steps_offset=1, set_alpha_to_one=False, clip_sample=False, timestep_spacing="leading")
"""`sampling.scheduler` of the paper's study. A delta does not name a study, since several may sample it."""


def export_model(run: str, folder: Path) -> None:
    """Write an unlearned model as a diffusers folder that `StableDiffusionPipeline.from_pretrained` loads.

    The folder contains the base model with the run's delta in its U-Net, in fp32, and the DDIM scheduler of the paper's
    study. The user chooses the number of steps and the guidance scale.

    Args:
        run: name of a run of one of `DELTA_STAGES` (`unlearning` if it names no stage), or the beginning of it up to a
            hyphen.
        folder: destination, which must not exist.

    Raises `ConfigurationError` if there is no such run or `folder` exists, and `ArtefactError` or `AssetError` if a
    file that it needs is missing or damaged.
    """
    stage = run.partition("/")[0]
    unlearned = _run(stage if stage in DELTA_STAGES else "unlearning", run, folder)
    world = read_input(read_specification(unlearned.folder / SPECIFICATION), "pipeline")
    base = BaseModel(world)
    delta = unlearned.file(DELTA_FILE)
    unet = base.unet()
    load_delta(delta, unet, base.unet_sha256)
    with atomic_folder(folder) as temporary:
        scheduler = base.scheduler(**PAPER_SCHEDULER.switches)
        save_pipeline(temporary, base.autoencoder(), base.text_encoder(), base.tokenizer(), unet, scheduler)
        write_json(
            temporary / ORIGIN_FILE,
            {"run": unlearned.folder.name, "base": base.unet_sha256, "delta": unlearned.files[DELTA_FILE]},
        )


def export_images(run: str, folder: Path) -> None:
    """Copy the images of a run into one folder as `STYLE_OBJECT_seedSEED.jpg`, the layout of the benchmark's evaluator.

    Args:
        run: name of a run of the stage `samples`, or the beginning of it up to a hyphen.
        folder: destination, which must not exist.

    Raises as `export_model` does.
    """
    samples = _run("samples", run, folder)
    paths = image_paths(samples)
    with atomic_folder(folder) as temporary:
        for path in paths.values():
            shutil.copyfile(path, temporary / path.name)


def _run(stage: str, text: str, folder: Path) -> Manifest:
    """The only complete run of a stage that a text names. Checks that `folder` does not exist."""
    check_is_new(folder)
    beginning = text.rstrip("/").split("/")[-1]
    known = sorted(path.parent.name for path in (RUNS / stage).glob(f"*/{MANIFEST}"))
    matches = [name for name in known if matches_run(f"{stage}/{name}", beginning)]
    if len(matches) > 1:
        raise ConfigurationError(
            f"{text}: {len(matches)} complete runs in {RUNS / stage} have names that begin so: {', '.join(matches)}; "
            "name the row of a table instead: results/STUDY/table1.csv TASK ROW."
        )
    if not matches:
        choice = f"one of {', '.join(known)}" if known else "a complete run; build a table with Snakemake"
        raise ConfigurationError(f"{text}: there is no such run in {RUNS / stage}, expected {choice}.")
    return read_manifest(RUNS / stage / matches[0] / MANIFEST)
