"""`python -m corelib preflight`: check within seconds whether a study can run here, before anything is started.

A real run checks disk space and versions itself before its first job. In the paper's world, its first job checks the
assets.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from corelib.cluster.request_checks import Request, check_requests
from corelib.cluster.site import SITE_FILE as SITE
from corelib.cluster.site import Site, check_site_file
from corelib.commands.arguments import CONFIGURATION, add_study
from corelib.commands.assets import required_images
from corelib.commands.leaf_names import uses_of
from corelib.costs.disk_space import check_disk_space, free_bytes
from corelib.costs.forecast import forecast
from corelib.costs.gpu_memory import fits, largest_gpu_memory
from corelib.costs.job_requests import requested_memory_mb, requested_minutes
from corelib.errors import ConfigurationError, listed
from corelib.files.paths import nearest_existing, resolve_links, why_not_writable
from corelib.files.shell_paths import path_faults
from corelib.files.text import counted, format_bytes
from corelib.files.yaml_files import read_yaml
from corelib.maintenance.missing_places import downloaded_places, missing_places
from corelib.models.model_inspection import trained_resolution
from corelib.runs.active_jobs import LOG_FOLDER
from corelib.runs.fingerprint import NUMERICAL_PACKAGES
from corelib.runs.gpu import driver_advice, driver_version
from corelib.runs.layout import REPOSITORY, RESULTS, RUNS
from corelib.runs.pins import differing_versions
from corelib.runs.run import Run
from corelib.runs.stage_registry import STAGES
from corelib.settings.data import EmbeddingsStage
from corelib.study.loading import load_plan
from corelib.study.plan import Plan
from corelib.study.schema import Study
from corelib.study.targets import assets_command, product_of, targets_of
from corelib.worlds.assets.image_index import ImageIndex, read_index
from corelib.worlds.assets.presence import MAKE_ASSETS_ADVICE

HELP = "check whether a study can run here: assets, disk space, versions, device"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `study`."""
    add_study(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print each finding at once. Returns 1 if there is a fault."""
    faults = 0
    for finding in preflight(load_plan(arguments.study, CONFIGURATION), REPOSITORY, CONFIGURATION):
        print(finding, flush=True)
        faults += finding.kind == "FAULT"
    verdict = f"{counted(faults, 'fault')}, expected none" if faults else "ready"
    print(f"{arguments.study}: {verdict}.")
    return 1 if faults else 0


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Attributes:
        subject: the subject of the check, in one word.
        said: the result.
        kind: `FAULT` if the study cannot run, `note` for other information that the user should have.
    """

    subject: str
    said: str
    kind: Literal["ok", "note", "FAULT"] = "ok"

    def __str__(self) -> str:
        return f"{self.kind:<7}{self.subject:<10}{self.said}"


def preflight(plan: Plan, repository: Path, configuration: Path) -> Iterator[Finding]:
    """Check everything that a study needs: paths, assets, classes, disk space, versions, cluster, device.

    Args:
        plan: plan of the study.
        repository: folder of the Snakefile and of the pins.
        configuration: folder of the lock.
    """
    yield from (Finding("place", fault, kind="FAULT") for fault in path_faults(Path(sys.executable), repository))
    if plan.study.world.kind != "miniature":
        yield from _assets(plan, repository)
    if plan.study.models:
        yield from _models(plan, configuration)
    yield from _anchors(plan)
    yield from _room(plan)
    differing = differing_versions(repository)
    yield from (Finding("versions", sentence, "note") for sentence in differing)
    if not differing:
        yield Finding("versions", f"all {len(NUMERICAL_PACKAGES)} numerical packages have their pinned versions")
    yield from _cluster(plan, repository)
    yield from _device(plan)
    yield from _threads(max(run.threads for run in _runs_of(plan)), os.cpu_count() or 1)


# Assets


def _assets(plan: Plan, repository: Path) -> Iterator[Finding]:
    """The checks of the first job, with findings for passed checks as well."""
    from corelib.worlds.assets.adoption import asset_faults  # imported here: reading weights needs torch
    from corelib.worlds.assets.asset_inspection import read_error_message

    world = plan.asset_world
    settings, places = world.assets()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as links:
        for name, place in places.items():
            (Path(links) / name).symlink_to(Path(place).absolute())
        try:
            faults.extend(asset_faults(settings, Path(links), values=False, compvis_weights=world.compvis_weights))
        except OSError as error:
            faults.append(read_error_message(error, Path(links)))
    absent = dict(missing_places(plan.asset_places(), downloaded_places(repository / "config")))
    yield from (Finding("assets", f"{fault}; correct the path", kind="FAULT") for fault in absent.values())
    roots = [str(resolve_links(Path(place).absolute())) for place in absent]
    faults = [
        fault for fault in faults if not fault.startswith(tuple(f"{root}{end}" for root in roots for end in " /"))
    ]
    yield from (Finding("assets", fault.removesuffix(MAKE_ASSETS_ADVICE), kind="FAULT") for fault in faults)
    if any(fault.endswith(MAKE_ASSETS_ADVICE) for fault in faults):
        yield Finding("assets", _provision(plan, repository / "config"), kind="note")
    if faults or absent:
        return
    summary = (
        f"all {len(settings.sha256)} are present, intact and as locked, and the weights fit their networks; "
        "the images themselves are read by the jobs that use them"
    )
    yield Finding("assets", summary)
    yield from _prompts(plan, Path(places["pipeline"]) / "tokenizer")
    index = read_index(Path(places["image_index"]))
    if missing := required_images(plan.study).missing_from(index):
        style, object_, number = missing[0]
        fault = f"{places['image_index']} has no image {number} of {style}/{object_}, which the study needs"
        yield Finding("assets", f"{fault}; {assets_command(plan.name)} prints details", "FAULT")
    yield from _classes(plan.study, index)
    if settings.unet is not None:
        yield from _resolution(plan.study, Path(places["pipeline"]) / settings.unet)


def _classes(study: Study, index: ImageIndex) -> Iterator[Finding]:
    """Whether the images are those of the study's concepts, or styles, and objects."""
    is_own = study.world.kind == "image_folder"  # a study may use a part of a folder
    named = {"concept" if is_own else "style": study.world.styles}
    if study.world.objects:
        named["object"] = study.training_objects
    for position, (noun, configured) in enumerate(named.items()):
        indexed = sorted({str(key[position]) for key in index.places})
        if is_own and set(configured) <= set(indexed):
            yield Finding("classes", f"the images are of {counted(len(configured), noun)} of the study")
        elif not is_own and sorted(configured) == indexed:
            agreement = "are those of the images, in the order of the classifier's outputs"
            yield Finding("classes", f"the {counted(len(configured), noun)} {agreement}")
        else:
            fault = f"the {noun}s of the images are {listed(indexed)}, expected {listed(configured)}"
            yield Finding("classes", fault, "FAULT")


def _resolution(study: Study, unet: Path) -> Iterator[Finding]:
    """A note on each resolution of the study for which the base model was not trained."""
    trained = trained_resolution(unet, unet.parent / "vae")
    for key, resolution in (
        ("encoding.resolution", study.encoding.resolution),
        ("sampling.resolution", study.sampling.resolution),
    ):
        if trained is not None and resolution != trained:
            said = f"{key} is {resolution}, but {unet}/config.json says that the model was trained at {trained} pixels"
            yield Finding("pipeline", said, "note")


def _prompts(plan: Plan, tokenizer: Path) -> Iterator[Finding]:
    """Whether the text encoder takes every prompt in its whole length."""
    from corelib.data.embeddings import prompt_length_faults  # imported here: they need torch
    from corelib.models.pipeline_parts import load_tokenizer

    sections = [run.settings for run in _runs_of(plan) if isinstance(run.settings, EmbeddingsStage)]
    prompts = list(dict.fromkeys(prompt for section in sections for prompt in section.prompts))
    faults = list(prompt_length_faults(load_tokenizer(tokenizer), prompts))
    yield from (Finding("prompts", fault, kind="FAULT") for fault in faults)
    if not faults:
        yield Finding("prompts", f"all {len(prompts)} are within the length that the text encoder takes")


def _runs_of(plan: Plan) -> list[Run]:
    """All runs of a study, each once."""
    products = plan.products().values()
    return list({run.name: run for product in products for run in product.with_all_inputs().values()}.values())


def _provision(plan: Plan, configuration: Path) -> str:
    """The command that provides missing assets, the size of its download, and the assets that it cannot download."""
    from corelib.worlds.assets.download import load_sources  # imported here: most studies need no Hub

    places, sources = plan.asset_world.assets()[1], load_sources(configuration)
    missing = {name: Path(place) for name, place in places.items() if name in sources and not Path(place).exists()}
    downloaded = [name for name in missing if Path(sources[name].place) == missing[name]]
    elsewhere = [str(place) for name, place in missing.items() if name not in downloaded]
    text = f"{assets_command(plan.name)} locks the present assets"
    if downloaded:
        size = format_bytes(sum(sources[name].gigabytes for name in downloaded) * 1e9)
        free = format_bytes(shutil.disk_usage(nearest_existing(Path(sources[downloaded[0]].folder))).free)
        text += f", and downloads about {size} of missing ones ({free} are free there)"
    if elsewhere:
        text += f"; it does not download assets for which the study has its own path: {', '.join(elsewhere)}"
    return text


def _models(plan: Plan, configuration: Path) -> Iterator[Finding]:
    """Whether the models of the user's own are there and as locked, and fit the base model's U-Net."""
    from corelib.maintenance.model_locking import model_faults  # imported here: reading weights needs torch

    paths = plan.given_models()
    faults = list(model_faults(paths, plan.world.unet_folder, configuration))
    yield from (Finding("models", fault, kind="FAULT") for fault in faults)
    if not faults:
        yield Finding("models", f"all {len(paths)} are present and as locked")


def _anchors(plan: Plan) -> Iterator[Finding]:
    """A note on each anchor that the study names itself although it is to be forgotten, too."""
    uses = [use for use in uses_of(plan).values() if use.row is not None and isinstance(use.scheme, dict)]
    notes = [
        f"the anchor of {style} is {anchor}, which {use.task} forgets as well"
        for use in uses
        for style, anchor in use.scheme.items()
        if anchor in plan.study.tasks[use.task].forget
    ]
    yield from (Finding("anchors", note, "note") for note in dict.fromkeys(notes))


# Disk space


def _room(plan: Plan) -> Iterator[Finding]:
    products = plan.products()
    paths = [Path(target) for target in targets_of(plan.name, plan.study)]
    wanted = {str(path.parent / product_of(path)): products[product_of(path)] for path in paths}
    cost = forecast(wanted, plan.study.world.kind)
    try:
        check_disk_space(cost)
    except ConfigurationError as error:
        yield Finding("disk", str(error), kind="FAULT")
    else:
        yield Finding(
            "disk",
            f"results need about {format_bytes(cost.work.disk)}, {format_bytes(free_bytes())} are free",
        )
    for folder in (RUNS, RESULTS, LOG_FOLDER):
        if fault := why_not_writable(folder):
            yield Finding("disk", fault, kind="FAULT")


# Cluster


def _cluster(plan: Plan, repository: Path) -> Iterator[Finding]:
    """Whether Slurm can start the jobs of a study; no finding on a machine without Slurm."""
    if shutil.which("sinfo") is None:
        return
    check_site_file(repository)
    file = repository / SITE
    site = Site.of((read_yaml(file) if file.exists() else None) or {})
    requests = {request for run in _runs_of(plan) if (request := _request(run, site)) is not None}
    faults = check_requests(sorted(requests, key=str), repository)
    yield from (Finding("cluster", fault, kind="FAULT") for fault in faults or ())
    if faults is None:
        yield Finding("cluster", "Slurm does not respond, so the requests of jobs are not checked", kind="note")
    elif not faults:
        yield Finding("cluster", f"{SITE}, partitions and nodes allow the requests of all jobs")


def _request(run: Run, site: Site) -> Request | None:
    """The request of a run's job to Slurm at its first attempt; None if the job runs on Snakemake's own machine."""
    stage = STAGES[run.stage]
    if stage.runs_on == "snakemake":
        return None
    resources = {
        **site.resources_of(run.stage),
        "mem_mb": requested_memory_mb(run.stage, 1, site.max_memory_mb),
        "runtime": requested_minutes(run, site.seconds, 1, site.max_minutes),
    }
    return Request.of(stage.shards[0] if stage.shards else stage.rule, resources, run.threads)


# Device


def _device(plan: Plan) -> Iterator[Finding]:
    import torch

    from corelib.models.kernels import missing_compiler

    compiles = any(kernels.compile for kernels in (plan.study.training.kernels, plan.study.sampling.kernels))
    if compiles and (fault := missing_compiler()):
        yield Finding("device", fault, "FAULT")
    if not torch.cuda.is_available():
        if advice := driver_advice(torch.version.cuda):
            yield Finding("device", f"torch {torch.__version__} cannot use a GPU here; {advice}", kind="note")
            return
        text = f"no GPU here, {os.cpu_count()} CPU cores; neither a login node nor the miniature needs one"
        yield Finding("device", text, "note")
        return
    properties = torch.cuda.get_device_properties(0)
    bf16 = "with bf16" if torch.cuda.is_bf16_supported() else "WITHOUT bf16"
    count = torch.cuda.device_count()
    memory, driver = format_bytes(properties.total_memory), driver_version() or "unknown"
    yield Finding("device", f"{count} x {properties.name}, {memory}, {bf16}, driver {driver}")
    if plan.study.world.kind != "miniature":
        yield _memory(largest_gpu_memory(_runs_of(plan)), properties.total_memory)


def _threads(threads: int, cores: int) -> Iterator[Finding]:
    """A note if jobs use more CPU threads than this machine has cores."""
    if threads > cores:
        text = (
            f"jobs use up to {threads} CPU threads, and this machine has {cores} cores; to run them here, set `threads`"
        )
        yield Finding("threads", text, "note")


def _memory(needed: float, memory: int) -> Finding:
    """Whether the largest job fits into a GPU's memory.

    Args:
        needed: memory of the job, in bytes, as it was counted.
        memory: memory of the GPU, in bytes.
    """
    text = f"the largest job needs about {format_bytes(needed)} of the GPU's {format_bytes(memory)}"
    if fits(needed, memory):
        return Finding("memory", text)
    advice = "reduce sampling.batch, sampling.decoding.batch or the batch of the method"
    return Finding("memory", f"{text}, and CUDA itself needs more; {advice}", "FAULT" if needed > memory else "note")
