"""Measure the time and memory of each stage, with the paper's models at full size and random weights.

    python benchmarks/full_size.py [--steps N] [--keep FOLDER]

Runs the stages of the workflow, each in a separate process, for one CORE step, one SalUn mask, one guided image and one
classification. The models have 860 million parameters and 512 pixels; they need about 18 GB of memory and 20 GB on
disk. Uses a GPU if there is one.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from corelib.files.hashing import sha256_of_path  # noqa: E402
from corelib.runs.layout import MANIFEST  # noqa: E402
from corelib.runs.manifest import Manifest, read_manifest  # noqa: E402
from corelib.runs.stage_context import StageContext, StageResult  # noqa: E402
from corelib.study.loading import load_study  # noqa: E402

STUDY = load_study("paper", REPOSITORY / "config")
FORGET, RETAIN, OBJECT = "Van_Gogh", "Monet", "Dogs"
PAIRS = [1, 2, 3, 4]
"""Indices of the images of each of the two cells: as many as one step of CORE has pairs."""


def main() -> None:
    """Create the assets, run every stage in a separate process, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--steps", type=int, default=STUDY.sampling.scheduler.steps, help="number of DDIM steps for the image"
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--keep", type=Path, help="folder for the assets, which is kept (default: a temporary folder)")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        run_stage(options.stage, options.keep, options.threads, options.steps)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        arguments = ["--keep", str(folder), "--threads", str(options.threads), "--steps", str(options.steps)]
        print(f"{platform.processor() or platform.machine()}, {options.threads} threads, {options.steps} DDIM steps\n")
        print(f"{'stage':<16}{'seconds':>10}{'peak MiB':>10}{'GPU MiB':>10}  result", flush=True)
        for stage in STAGES:
            if not (folder / stage / MANIFEST).exists():
                subprocess.run([sys.executable, __file__, "--stage", stage, *arguments], check=True)


def run_stage(name: str, folder: Path, threads: int, steps: int) -> None:
    """Run one stage in this process, and print its line of the table."""
    import torch

    began = time.monotonic()
    work = StageContext(folder=folder / name, digest=name, inputs=inputs_of(folder, name), threads=threads)
    work.folder.mkdir(parents=True, exist_ok=True)
    outcome = STAGES[name](work, steps)
    from support.hand_made import write_manifest

    write_manifest(work.folder / MANIFEST, work.folder, name, name, outcome.files, outcome.facts)
    seconds, peak = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    gpu_peak = f"{torch.cuda.max_memory_allocated() // 2**20:>10}" if torch.cuda.is_available() else f"{'-':>10}"
    numbers = {key: value for key, value in outcome.facts.items() if isinstance(value, int | float)}
    print(f"{name:<16}{seconds:>10.1f}{peak:>10}{gpu_peak}  {json.dumps(numbers)}", flush=True)


def inputs_of(folder: Path, stage: str) -> dict[str, Manifest]:
    """Manifests of the inputs of a stage, by role."""
    return {role: read_manifest(folder / stage_of_input / MANIFEST) for role, stage_of_input in INPUTS[stage].items()}


# The stages, with the paper's settings and as little data as possible


def make_assets(context: StageContext, _: int) -> StageResult:
    """Random weights of the real architectures and random images of the real size."""
    from support.full_format import FULL, benchmark_images, write_assets, write_image_folder

    write_assets(context.folder, FULL, STUDY.world.styles, STUDY.world.objects)
    cells = [(style, OBJECT) for style in (FORGET, RETAIN)]
    write_image_folder(context.folder / "images", benchmark_images([FORGET, RETAIN], [OBJECT], len(PAIRS), large=cells))
    checkpoints = context.folder / "UnlearnCanvas-ckpts"
    pipeline = checkpoints / "diffusion/diffuser/style50"
    classifiers = {}
    for label, name, classes in (
        ("style", "style50", STUDY.world.styles),
        ("object", "style50_cls", STUDY.world.objects),
    ):
        path = checkpoints / f"cls_model/{name}.pth"
        classifiers[label] = {
            "weights": str(path.relative_to(context.folder)),
            "sha256": sha256_of_path(path),
            "architecture": FULL.classifier,
            "options": {},
            "classes": classes,
            "resolution": 224,
        }
    facts = {
        "images": "images",
        "pipeline": str(pipeline.relative_to(context.folder)),
        "unet": "unet",
        "parts": {part.name: sha256_of_path(part) for part in sorted(pipeline.iterdir()) if part.is_dir()},
        "classifiers": classifiers,
    }
    return StageResult(["images"], facts)


def make_slice(context: StageContext, _: int) -> StageResult:
    """A slice with one cell to forget and one to retain."""
    from corelib.data.slices import slice_images
    from corelib.settings.data import SliceStage

    return slice_images(SliceStage(forget=[FORGET], retain=[RETAIN], objects=[OBJECT], images=PAIRS), context)


def make_latents(context: StageContext, _: int) -> StageResult:
    """Latent moments of eight images of three megabytes each."""
    from corelib.data.latents import encode_images
    from corelib.settings.data import LatentsStage

    settings = LatentsStage(styles=[RETAIN, FORGET], objects=[OBJECT], images=PAIRS, encoding=STUDY.encoding)
    return encode_images(settings, context)


def make_embeddings(context: StageContext, _: int) -> StageResult:
    """Embeddings of all prompts of the study."""
    from corelib.data.embeddings import embed_prompts
    from corelib.settings.data import EmbeddingsStage

    concepts = [(style, object_) for style in STUDY.world.styles for object_ in STUDY.world.objects]
    wordings = (STUDY.prompts.in_training, STUDY.prompts.in_evaluation)
    settings = EmbeddingsStage(
        prompts=sorted({"", *(wording.prompt(*concept) for wording in wordings for concept in concepts)})
    )
    return embed_prompts(settings, context)


def make_mask(context: StageContext, _: int) -> StageResult:
    """SalUn's mask over four forget pairs."""
    from corelib.settings.unlearning import SaliencyStage
    from corelib.unlearning.saliency import find_salient_weights

    method = STUDY.methods["salun"]
    assert method.saliency is not None
    settings = SaliencyStage(
        saliency=method.saliency,
        trained=method.trained,
        batch=method.batch,
        wording=STUDY.prompts.in_training,
        precision=STUDY.training.precision,
        seed=0,
    )
    return find_salient_weights(settings, context)


def take_step(context: StageContext, _: int) -> StageResult:
    """One step of CORE: four forget and four retain pairs."""
    from corelib.settings.unlearning import Length, UnlearningStage
    from corelib.study.plan import Plan
    from corelib.study.published import load_published
    from corelib.unlearning.trainer import unlearn

    run = Plan("paper", STUDY, load_published(REPOSITORY / "config")).unlearning("Forget01", "core", None)
    assert isinstance(run.settings, UnlearningStage)
    changes: Mapping[str, Any] = {"length": Length(steps=1), "candidates": {FORGET: [RETAIN]}}
    return unlearn(run.settings.model_copy(update=changes), context)


def sample_image(context: StageContext, steps: int) -> StageResult:
    """One guided image of the unlearned model."""
    from corelib.sampling.sampler import sample_shard
    from corelib.settings.sampling import SamplesStage

    scheduler = STUDY.sampling.scheduler.model_copy(update={"steps": steps})
    sampling = STUDY.sampling.model_copy(update={"batch": 1, "scheduler": scheduler})
    settings = SamplesStage(sampling=sampling, wording=STUDY.prompts.in_evaluation, grid=[(FORGET, OBJECT, 188)])
    sample_shard(settings, context, 0, 1)
    from corelib.sampling.collection import gather_samples

    return gather_samples(settings, context)


def classify(context: StageContext, _: int) -> StageResult:
    """Both classifiers on one image."""
    from corelib.evaluation.classification import classify_images
    from corelib.settings.evaluation import PredictionsStage

    return classify_images(PredictionsStage(classification=STUDY.classification), context)


STAGES: dict[str, Callable[[StageContext, int], StageResult]] = {
    "assets": make_assets,
    "slice": make_slice,
    "latents": make_latents,
    "embeddings": make_embeddings,
    "saliency": make_mask,
    "unlearning": take_step,
    "samples": sample_image,
    "predictions": classify,
}
TRAINING_INPUTS = {"pipeline": "assets", "slice": "slice", "latents": "latents", "embeddings": "embeddings"}
INPUTS: dict[str, dict[str, str]] = {
    "assets": {},
    "slice": {"images": "assets"},
    "latents": {"images": "assets", "pipeline": "assets"},
    "embeddings": {"pipeline": "assets"},
    "saliency": TRAINING_INPUTS,
    "unlearning": TRAINING_INPUTS,
    "samples": {"pipeline": "assets", "embeddings": "embeddings", "delta": "unlearning"},
    "predictions": {"samples": "samples", "style_classifier": "assets", "object_classifier": "assets"},
}

if __name__ == "__main__":
    main()
