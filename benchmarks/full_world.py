"""Stable Diffusion v1.5 with random weights: the inputs of one CORE run, and its comparison with the reference.

Nothing is downloaded: the networks are built from their configurations on the device, and written to a folder in
diffusers' layout, from which the stages and the reference load them. The folder takes about 5 GB.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from support.full_format import (
    FULL,
    Width,
    benchmark_images,
    build_autoencoder,
    build_text_encoder,
    build_unet,
    write_image_folder,
    write_tokenizer,
)
from support.hand_made import write_manifest

from benchmarks import reference
from benchmarks.measurement import Comparison, Side, matmul_peak, measure
from benchmarks.reference import Job, Pictured
from benchmarks.report import Report
from corelib.data.embeddings import embed_prompts
from corelib.data.latents import encode_images
from corelib.data.slices import slice_images
from corelib.files.hashing import sha256_of_path
from corelib.runs.layout import MANIFEST, REPOSITORY
from corelib.runs.manifest import Manifest, read_manifest
from corelib.runs.stage_context import StageContext, StageResult
from corelib.sampling.grid import image_name
from corelib.sampling.sampler import sample_shard
from corelib.settings.data import EmbeddingsStage, LatentsStage, SliceStage
from corelib.settings.sampling import SamplesStage
from corelib.settings.unlearning import Length, UnlearningStage
from corelib.study.loading import load_study
from corelib.study.plan import Plan
from corelib.study.published import load_published
from corelib.unlearning.trainer import unlearn

STUDY = load_study("paper", REPOSITORY / "config")
FORGET, RETAIN, OBJECT = "Van_Gogh", "Monet", "Dogs"
PAIRS = [1, 2, 3, 4]
"""Indices of the images of each of the two cells: as many as one step of CORE has pairs."""

DIGEST = "benchmark"
"""The digest of all runs. Deltas contain it, and deltas of equal trainings are compared bit for bit."""

SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""The noise schedule of Stable Diffusion v1.5."""


@dataclass
class FullWorld:
    """The inputs of a CORE run at the size of the paper's base model, with one cell to forget and one to retain.

    Args:
        folder: folder for all files.
        width: the widths of the networks.
        resolution: side of the images in pixels.
        device: device on which the networks are built.

    Attributes:
        runs: the manifests of the inputs, by role.
    """

    folder: Path
    width: Width
    resolution: int
    device: str
    threads: int = 4
    runs: dict[str, Manifest] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()
        self._run("assets", self._write_assets)
        self.runs |= {"images": self.runs["assets"], "pipeline": self.runs["assets"]}
        slice_ = SliceStage(forget=[FORGET], retain=[RETAIN], objects=[OBJECT], images=PAIRS)
        self._run("slice", lambda context: slice_images(slice_, context))
        encoding = STUDY.encoding.model_copy(update={"resolution": self.resolution})
        latents = LatentsStage(styles=[RETAIN, FORGET], objects=[OBJECT], images=PAIRS, encoding=encoding)
        self._run("latents", lambda context: encode_images(latents, context))
        wordings = (STUDY.prompts.in_training, STUDY.prompts.in_evaluation)
        prompts = {wording.prompt(style, OBJECT) for wording in wordings for style in (FORGET, RETAIN)}
        embeddings = EmbeddingsStage(prompts=sorted({"", *prompts}))
        self._run("embeddings", lambda context: embed_prompts(embeddings, context))

    def _run(self, role: str, stage: Callable[[StageContext], StageResult]) -> None:
        self.runs[role] = self.complete(role, stage, self.runs)

    def complete(
        self, name: str, stage: Callable[[StageContext], StageResult], inputs: Mapping[str, Manifest]
    ) -> Manifest:
        """Run a stage in a folder of that name, and return its manifest."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        outcome = stage(StageContext(folder, DIGEST, inputs, self.threads, checkpoint_seconds=3600.0))
        write_manifest(folder / MANIFEST, folder, name, DIGEST, outcome.files, outcome.facts)
        return read_manifest(folder / MANIFEST)

    def _write_assets(self, context: StageContext) -> StageResult:
        torch.manual_seed(0)
        pipeline = context.folder / "pipeline"
        with torch.device(self.device), torch.no_grad():
            build_unet(self.width).save_pretrained(pipeline / "unet")
            build_autoencoder(self.width).save_pretrained(pipeline / "vae")
            build_text_encoder(self.width).save_pretrained(pipeline / "text_encoder")
        DDIMScheduler(**SCHEDULE).save_pretrained(pipeline / "scheduler")
        write_tokenizer(pipeline / "tokenizer")
        side = max(64, self.resolution)
        write_image_folder(
            context.folder / "images", benchmark_images([FORGET, RETAIN], [OBJECT], len(PAIRS), side=side)
        )
        parts = {part.name: sha256_of_path(part) for part in sorted(pipeline.iterdir()) if part.is_dir()}
        return StageResult(["images"], {"images": "images", "pipeline": "pipeline", "unet": "unet", "parts": parts})

    # Training and sampling

    def training_settings(self, steps: int, **changes: Any) -> UnlearningStage:
        """CORE with the paper's settings, for that many steps."""
        run = Plan("paper", STUDY, load_published(REPOSITORY / "config")).unlearning("Forget01", "core", None)
        assert isinstance(run.settings, UnlearningStage)
        fixed = {"length": Length(steps=steps), "candidates": {FORGET: [RETAIN]}, "draw": None}
        return run.settings.model_copy(update={**fixed, **changes})

    def train(self, name: str, settings: UnlearningStage) -> Manifest:
        """Train in a folder of that name; a checkpoint there is resumed."""
        roles = ("pipeline", "slice", "latents", "embeddings")
        inputs = {role: self.runs[role] for role in roles}
        return self.complete(name, lambda context: unlearn(settings, context), inputs)

    def sampling_settings(self, count: int, steps: int, batch: int, **changes: Any) -> SamplesStage:
        """The paper's sampling of `count` images, with that number of steps and that batch size."""
        scheduler = STUDY.sampling.scheduler.model_copy(update={"steps": steps})
        fixed = {"batch": batch, "scheduler": scheduler, "resolution": self.resolution}
        sampling = STUDY.sampling.model_copy(update={**fixed, **changes})
        grid = [(FORGET, OBJECT, seed) for seed in range(count)]
        return SamplesStage(sampling=sampling, wording=STUDY.prompts.in_evaluation, grid=grid)

    def sample(self, name: str, settings: SamplesStage, delta: Manifest | None = None) -> Path:
        """Sample in a folder of that name, and return the folder of the images."""
        inputs = {role: self.runs[role] for role in ("pipeline", "embeddings")} | ({"delta": delta} if delta else {})
        self.complete(name, lambda context: sample_shard(settings, context, 0, 1), inputs)
        return self.folder / name / "images"

    def job(self, training: UnlearningStage, samples: SamplesStage, dtype: str) -> Job:
        """The same work for the reference."""
        images = self.runs["assets"].folder / "images"

        def pictured(style: str, anchor: str) -> list[Pictured]:
            caption = training.wording.prompt(style, OBJECT)
            wanted = training.wording.prompt(anchor, OBJECT) if anchor else ""
            return [Pictured(str(images / style / OBJECT / f"{index}.jpg"), caption, wanted) for index in PAIRS]

        return Job(
            pipeline=str(self.runs["assets"].folder / "pipeline"),
            output=str(self.folder / "reference"),
            forget=pictured(FORGET, RETAIN),
            retain=pictured(RETAIN, ""),
            steps=training.length.steps or 1,
            batch=training.pairs_per_step,
            learning_rate=training.learning_rate,
            resolution=self.resolution,
            prompts=[
                (image_name(*image), samples.wording.prompt(image[0], image[1]), image[2]) for image in samples.grid
            ],
            sampling_steps=samples.sampling.scheduler.steps,
            guidance_scale=samples.sampling.guidance_scale,
            classifiers={},
            real=[],
            compared=[],
            device=self.device,
            dtype=dtype,
        )


def compare(folder: Path, pairs: int, remarks: Sequence[str]) -> Report:
    """Training in bf16 and sampling in fp16 at full size on a GPU, beside the reference in the same precision.

    Both sides load their weights in each pair, as their processes would.
    """
    world = FullWorld(folder, FULL, 512, "cuda")
    results = [measure(comparison, pairs) for comparison in comparisons(world, 100, 16, 100)]
    peak = matmul_peak("cuda", torch.bfloat16, 8192)
    title = f"Stable Diffusion v1.5 with random weights, on one {torch.cuda.get_device_name()}"
    return Report(title, "wall", results, peak, {}, remarks)


def comparisons(world: FullWorld, steps: int, images: int, sampling_steps: int) -> list[Comparison]:
    """Training and sampling, ours and the reference's, with the weights loaded by both sides.

    Args:
        world: the inputs.
        steps: number of training steps.
        images: number of images that ours samples, in one batch; the reference samples two of them.
        sampling_steps: number of DDIM steps.
    """
    training = world.training_settings(steps)
    samples = world.sampling_settings(images, sampling_steps, images)
    precision = {"cpu": ("fp32", "fp32")}.get(world.device, (training.precision.gpu, samples.sampling.precision.gpu))
    jobs = [world.job(training, samples, dtype) for dtype in precision]

    def train_ours() -> None:
        with tempfile.TemporaryDirectory(dir=world.folder) as name:
            world.train(Path(name).name, training)

    def train_reference() -> None:
        loop = reference.Training(jobs[0])
        for _ in range(steps):
            loop.step()

    def sample_ours() -> None:
        with tempfile.TemporaryDirectory(dir=world.folder) as name:
            world.sample(Path(name).name, samples)

    def sample_reference() -> None:
        pipeline = reference.load_pipeline(jobs[1])
        for _, prompt, _ in jobs[1].prompts[:2]:
            reference.sample_image(jobs[1], pipeline, prompt)

    return [
        Comparison(
            f"training, {precision[0]}",
            "step",
            Side(train_ours, steps),
            Side(train_reference, steps),
            note=f"{steps} steps of four forget and four retain images of {world.resolution} pixels",
            flop=True,
        ),
        Comparison(
            f"sampling, {precision[1]}",
            "image",
            Side(sample_ours, images),
            Side(sample_reference, min(2, images)),
            note=f"{sampling_steps} guided steps; ours {images} images at a time, the reference one",
            flop=True,
        ),
    ]


def images_equal(first: Path, second: Path) -> bool:
    """Whether two folders have the same images, bit for bit, and at least one."""
    hashes = [{path.name: sha256_of_path(path) for path in sorted(folder.glob("*.jpg"))} for folder in (first, second)]
    return bool(hashes[0]) and hashes[0] == hashes[1]
