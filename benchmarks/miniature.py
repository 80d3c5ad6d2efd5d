"""The miniature's share of the benchmark: CORE on Forget06 in our stages, and in the plain reference."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import reference
from benchmarks.measurement import Comparison, Cost, Side, run_process
from benchmarks.reference import Job, Pictured
from corelib.evaluation.classification import classify_images
from corelib.evaluation.fid import frechet_distance, measure_fid, summarize_reference
from corelib.runs.layout import REPOSITORY, RUNS, SHARDS
from corelib.runs.manifest import Manifest, read_manifest
from corelib.runs.provenance_record import PROVENANCE_SUFFIX, read_provenance
from corelib.runs.run import Run
from corelib.runs.stage_context import StageContext
from corelib.sampling.grid import image_name
from corelib.sampling.sampler import sample_shard
from corelib.settings.unlearning import Length
from corelib.study.loading import load_plan
from corelib.study.plan import Plan
from corelib.unlearning.trainer import unlearn

TASK, METHOD, THREADS = "Forget06", "core", 1

STUDY = """\
base: mini
training: {{scale: {{length: {length}, min_steps: {min_steps}}}}}
sampling: {{scheduler: {{steps: {sampling_steps}}}}}
tasks:
  Forget01: null
  Forget06: {{evaluation: {{objects: [{objects}]}}}}
  Forget25: null
  Forget06-unseen: null
tables:
  table1: {{tasks: [Forget06], rows: [original], published: null}}
  table5: {{tasks: [Forget06], rows: [core], published: null}}
  table2: null
  table3: null
  table4: null
figures: {{figure2: null, figure3: null}}
"""
FULL_LENGTH = {
    "length": 0.02,
    "min_steps": 500,
    "sampling_steps": 20,
    "objects": "Arrows, Bolts, Circles, Crescents, Crosses, Diamonds, Donuts, Drops, Flowers, Frames",
}
QUICK_LENGTH = {"length": 0.001, "min_steps": 3, "sampling_steps": 2, "objects": "Arrows"}

FEATURES = 2048
"""Number of features of Inception, on which the Frechet distance is measured alone."""


class Miniature:
    """A folder in which the original model of the miniature has been evaluated, and CORE's row can be built repeatedly.

    Args:
        folder: an empty folder.
        quick: whether everything is as small as possible.

    Attributes:
        reference_peaks: peak memory of each process of the reference in MiB, once it has run.
    """

    def __init__(self, folder: Path, quick: bool) -> None:
        self.folder, self._quick = folder.resolve(), quick
        self.reference_peaks: dict[str, float] = {}
        studies = self.folder / "config/studies"
        studies.mkdir(parents=True)
        (studies / "bench.yaml").write_text(STUDY.format(**(QUICK_LENGTH if quick else FULL_LENGTH)), encoding="utf-8")
        self._snakemake("results/bench/table1.csv")
        with chdir(self.folder):
            self._shared = set(RUNS.glob("*/*"))

    def _snakemake(self, target: str) -> Cost:
        snakefile = str(REPOSITORY / "Snakefile")
        command = [sys.executable, "-m", "snakemake", "-s", snakefile, target, "--cores", str(THREADS)]
        return run_process(command, self.folder, _environment())

    # One run, from the start of its processes to its numbers

    def end_to_end(self) -> Comparison:
        """CORE's row of a table, whose original model is there: training, images, predictions, FID, table."""
        note = (
            "Ours: one Snakemake with all its jobs, which also writes a table with its provenance. "
            f"The reference: {len(reference.STAGES)} processes."
        )
        sides = Side(self.build_row, 1), Side(self.build_reference, 1)
        return Comparison("one run end to end", "run", *sides, is_rate=False, note=note, warm_up=False)

    def build_row(self) -> Cost:
        """Remove CORE's row and what only it needs, and build it again."""
        with chdir(self.folder):
            for run in set(RUNS.glob("*/*")) - self._shared:
                shutil.rmtree(run)
            for product in Path("results/bench").glob("table5.*"):
                product.unlink()
        return self._snakemake("results/bench/table5.csv")

    def build_reference(self) -> Cost:
        """All stages of the reference, each in a process."""
        with tempfile.TemporaryDirectory(dir=self.folder) as output:
            job = Path(output, "job.json")
            self.job(Path(output)).write(job)
            costs = {}
            for stage in reference.STAGES:
                command = [sys.executable, reference.__file__, stage, str(job), str(THREADS)]
                costs[stage] = run_process(command, Path(output), _environment())
        self.reference_peaks = {stage: cost.peak_mib for stage, cost in costs.items()}
        return Cost(
            sum(cost.cpu for cost in costs.values()),
            sum(cost.wall for cost in costs.values()),
            max(self.reference_peaks.values()),
        )

    def peaks(self) -> dict[str, tuple[float, float]]:
        """Peak memory of training and of sampling in MiB: of our jobs, and of the reference's processes."""
        with chdir(self.folder):
            training = self.plan.unlearning(TASK, METHOD, None).folder
            shard = sorted((self.plan.samples(TASK, METHOD, None).folder / SHARDS).glob("*.provenance.json"))[0]
            ours = {
                "train": read_provenance(training / f"manifest{PROVENANCE_SUFFIX}").peak_memory_mib,
                "sample": read_provenance(shard).peak_memory_mib,
            }
        return {stage: (float(peak), self.reference_peaks[stage]) for stage, peak in ours.items()}

    # The stages, in this process

    @property
    def plan(self) -> Plan:
        """The runs of the study; only in the folder."""
        return load_plan("bench", Path("config"))

    def job(self, output: Path) -> Job:
        """The same work for the reference."""
        with chdir(self.folder):
            plan = self.plan
            training: Any = plan.unlearning(TASK, METHOD, None).settings
            samples: Any = plan.samples(TASK, METHOD, None).settings
            slice_: Any = plan.slice(TASK).settings
            real: Any = plan.reference(TASK).settings
            compared: Any = plan.fid(TASK, METHOD, None).settings
            images = (plan.world.images().folder / "images").resolve()
            pretrained = plan.world.pipeline().folder.resolve()
            facts = read_manifest(plan.world.pipeline().manifest).facts

        def pictured(styles: list[str], anchors: Mapping[str, list[str]]) -> list[Pictured]:
            return [
                Pictured(
                    str(images / style / object_ / f"{index}.jpg"),
                    training.wording.prompt(style, object_),
                    training.wording.prompt(anchors[style][0], object_) if anchors else "",
                )
                for style in styles
                for object_ in slice_.objects
                for index in slice_.images
            ]

        return Job(
            pipeline=str(pretrained / facts["pipeline"]),
            output=str(output),
            forget=pictured(slice_.forget, training.candidates),
            retain=pictured(slice_.retain, {}),
            steps=training.num_steps(len(slice_.forget) * len(slice_.objects) * len(slice_.images)),
            batch=training.pairs_per_step,
            learning_rate=training.learning_rate,
            resolution=samples.sampling.resolution,
            prompts=[
                (image_name(style, object_, seed), samples.wording.prompt(style, object_), seed)
                for style, object_, seed in samples.grid
            ],
            sampling_steps=samples.sampling.scheduler.steps,
            guidance_scale=samples.sampling.guidance_scale,
            classifiers={
                label: (
                    str(pretrained / one["weights"]),
                    one["architecture"],
                    len(one["classes"]),
                    one["resolution"],
                )
                for label, one in facts["classifiers"].items()
            },
            real=[
                str(images / style / object_ / f"{index}.jpg")
                for style in real.styles
                for object_ in real.objects
                for index in real.fid.reference_images
            ],
            compared=[image_name(*image) for image in compared.grid],
        )

    def stages(self) -> list[Comparison]:
        """Training, sampling, classification and FID. CORE's row must be built."""
        with chdir(self.folder):
            return [self._training(), self._sampling(), self._classification(), self._fid(), self._real_features()]

    def _training(self) -> Comparison:
        steps = 2 if self._quick else 60
        run = self.plan.unlearning(TASK, METHOD, None)
        changes = {"length": Length(steps=steps), "min_steps": 1}
        ours = self._stage(unlearn, run, changes)
        job = replace(self.job(self.folder / "trained by the reference"), steps=steps)

        def train() -> None:
            training = reference.Training(job)
            for _ in range(job.steps):
                training.step()

        note = f"{steps} steps of four forget and four retain images; both sides load their weights"
        return Comparison("training", "step", Side(ours, steps), Side(train, steps), note=note, flop=True)

    def _sampling(self) -> Comparison:
        run = self.plan.samples(TASK, METHOD, None)
        settings: Any = run.settings
        count = min(len(settings.grid), settings.sampling.batch)
        ours = self._stage(lambda *work: sample_shard(*work, 0, 1), run, {"grid": settings.grid[:count]})
        job = self.job(self.folder / "sampled by the reference")
        few = replace(job, prompts=job.prompts[: max(1, count // 3)])
        note = f"ours in batches of {settings.sampling.batch}, the reference one at a time; both load their weights"
        sides = Side(ours, count), Side(lambda: reference.sample(few), len(few.prompts))
        return Comparison("sampling", "image", *sides, note=note, flop=True)

    def _classification(self) -> Comparison:
        run = self.plan.predictions(TASK, METHOD, None)
        job = self._with_images(run)
        amount = 2 * len(job.prompts)
        sides = Side(self._stage(classify_images, run, {}), amount), Side(lambda: reference.classify_both(job), amount)
        note = "two classifiers; both load their weights and read the JPEGs"
        return Comparison("classification", "classification", *sides, note=note)

    def _fid(self) -> Comparison:
        run = self.plan.fid(TASK, METHOD, None)
        job = self._with_images(run)
        sides = Side(self._stage(measure_fid, run, {}), 1), Side(lambda: reference.fid(job), 1)
        note = (
            f"features of {len(job.compared)} sampled images, and their distance to those of {len(job.real)} real ones;"
            " the reference computes the latter as well, ours reads those of the task"
        )
        return Comparison("FID of a model", "FID", *sides, is_rate=False, note=note)

    def _real_features(self) -> Comparison:
        run = self.plan.reference(TASK)
        job = self.job(self.folder / "our images")
        sides = Side(self._stage(summarize_reference, run, {}), 1), Side(lambda: reference.features(job, job.real), 1)
        note = f"{len(job.real)} images, once for each task; ours also verifies the sha256 of all images of the world"
        return Comparison("features of the real images", "task", *sides, is_rate=False, note=note)

    def _with_images(self, run: Run) -> Job:
        """The reference's work on our images, which it reads in place."""
        job = self.job(self.folder / "our images")
        images = Path(job.output) / "images"
        if not images.exists():
            images.parent.mkdir(parents=True, exist_ok=True)
            images.symlink_to((run.inputs["samples"].folder / "images").resolve())
        return job

    def _stage(self, stage: Callable[..., object], run: Run, changes: Mapping[str, Any]) -> Callable[[], None]:
        """A stage on the inputs of a run, with changed settings, in a folder of its own."""
        settings = run.settings.model_copy(update=changes)
        inputs: dict[str, Manifest] = {
            role: read_manifest(self.folder / needed.manifest) for role, needed in run.inputs.items()
        }

        def act() -> None:
            with tempfile.TemporaryDirectory(dir=self.folder) as folder, chdir(self.folder):
                stage(settings, StageContext(Path(folder), "benchmark", inputs, THREADS))

        return act


def distance_alone(quick: bool) -> Comparison:
    """The Frechet distance of random features, without any image."""
    width = 64 if quick else FEATURES
    rng = np.random.default_rng(0)
    sampled, real = rng.standard_normal((520, width)), rng.standard_normal((2600, width)) * 1.1
    first, second = torch.from_numpy(sampled), torch.from_numpy(real)
    sides = (
        Side(lambda: frechet_distance(first, second), 1),
        Side(lambda: reference.frechet_distance(sampled, real), 1),
    )
    note = f"{len(sampled)} and {len(real)} images of {width} random features"
    return Comparison("Frechet distance alone", "distance", *sides, is_rate=False, note=note)


def _environment() -> dict[str, str]:
    """The environment of a benchmark's processes: that of a user, with the number of threads."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(THREADS))
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | threads
