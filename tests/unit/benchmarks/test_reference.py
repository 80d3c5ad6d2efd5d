"""The plain reference of the benchmark computes the same numbers as the stages with which it is compared."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.checkout import REPOSITORY
from support.hand_made import write_manifest
from support.miniature import FACTS, MINI, SHIPPED, render, shipped_classifier

from corelib.data.embeddings import embed_prompts, embed_texts
from corelib.evaluation.fid import frechet_distance
from corelib.models.base_model import BaseModel
from corelib.models.student_teacher import StudentAndTeacher
from corelib.runs.manifest import Manifest, read_manifest
from corelib.runs.stage_context import StageContext
from corelib.sampling.sampler import Sampler, initial_noise
from corelib.settings.data import EmbeddingsStage
from corelib.settings.sampling import SamplesStage
from corelib.unlearning.objective import Batch, NoisyPairs, compute_loss

FORGET, ANCHOR, RETAIN = "Sky_Waves", "Amber_Dots", "Teal_Stripes"
OBJECTS = ["Circles", "Hearts"]


@pytest.fixture(scope="module")
def reference() -> Iterator[ModuleType]:
    """The module `benchmarks.reference`."""
    sys.path.insert(0, str(REPOSITORY))
    import benchmarks.reference as module

    yield module
    sys.path.remove(str(REPOSITORY))


@pytest.fixture
def world(tmp_path: Path) -> Manifest:
    """The manifest of the shipped networks."""
    folder = shutil.copytree(SHIPPED, tmp_path / "world")
    files = sorted(json.loads((SHIPPED / "world.json").read_text())["files"])
    write_manifest(folder / "manifest.json", folder, "pretrained", "digest", files, FACTS)
    return read_manifest(folder / "manifest.json")


@pytest.fixture
def job(reference: ModuleType, tmp_path: Path) -> Any:
    """Work of the reference on rendered images, which stand for the sampled ones as well."""
    folder = tmp_path / "output/images"
    folder.mkdir(parents=True)
    names = {}
    for style in (FORGET, RETAIN):
        for object_ in OBJECTS:
            for index in (1, 2, 3):
                name = f"{style}_{object_}_{index}.jpg"
                render(style, object_, index).save(folder / name, quality=95)
                names[name] = style, object_
    wording = MINI.prompts.in_training

    def pictured(style: str, anchor: str) -> list[Any]:
        return [
            reference.Pictured(
                str(folder / f"{style}_{object_}_1.jpg"),
                wording.prompt(style, object_),
                wording.prompt(anchor, object_) if anchor else "",
            )
            for object_ in OBJECTS
        ]

    return reference.Job(
        pipeline=str(SHIPPED / "pipeline"),
        output=str(tmp_path / "output"),
        forget=pictured(FORGET, ANCHOR),
        retain=pictured(RETAIN, ""),
        steps=2,
        batch=len(OBJECTS),
        learning_rate=1e-4,
        resolution=32,
        prompts=[(name, wording.prompt(*concept), 0) for name, concept in names.items()],
        sampling_steps=3,
        guidance_scale=MINI.sampling.guidance_scale,
        classifiers={
            label: (str(SHIPPED / one["weights"]), one["architecture"], len(one["classes"]), one["resolution"])
            for label, one in FACTS["classifiers"].items()
        },
        real=[str(folder / name) for name in list(names)[6:]],
        compared=list(names)[:6],
    )


class Cpu:
    torch_device = torch.device("cpu")

    def autocast(self) -> Any:
        return nullcontext()


def test_loss_and_gradient_of_core_are_those_of_our_objective(reference: ModuleType, job: Any, world: Manifest) -> None:
    base, generator = BaseModel(world), torch.Generator().manual_seed(1)
    models = StudentAndTeacher(base.unet(), "cross_attention", Cpu())
    training = reference.Training(job)
    theirs = dict(training.student.named_parameters())
    with torch.no_grad():  # a student that differs from its teacher, the same on both sides
        for name, parameter in models.trained.items():
            parameter.mul_(1 + 0.1 * torch.randn(parameter.shape, generator=generator))
            theirs[name].copy_(parameter)
    noise = {side: torch.randn(2, 4, 8, 8, generator=generator) for side in ("forget", "retain")}
    timesteps = torch.tensor([400, 900])

    def pairs(images: list[Any], side: str) -> NoisyPairs:
        def embed(texts: list[str]) -> torch.Tensor:
            return embed_texts(base.tokenizer(), base.text_encoder(), texts, torch.device("cpu"))

        anchor = embed([image.anchor for image in images]) if side == "forget" else None
        own = embed([image.caption for image in images])
        return NoisyPairs(noise[side], timesteps, torch.full((2,), 0.5), noise[side], own, anchor)

    batch = Batch(forget=pairs(job.forget, "forget"), retain=pairs(job.retain, "retain"))
    ours = compute_loss(MINI.methods["core"].objective, models.student, models.teacher, batch, "mean").total
    ours.backward()
    loss = training.loss(job.forget, noise["forget"], timesteps, anchored=True)
    loss = loss + training.loss(job.retain, noise["retain"], timesteps, anchored=False)
    loss.backward()
    assert loss.item() == pytest.approx(ours.item(), rel=1e-5) and loss.item() > 1e-4
    for name, parameter in models.trained.items():
        assert theirs[name].grad is not None
        torch.testing.assert_close(theirs[name].grad, parameter.grad, rtol=1e-3, atol=1e-6)
    assert {name for name, one in theirs.items() if one.requires_grad} == set(models.trained)


def test_a_step_changes_the_student(reference: ModuleType, job: Any) -> None:
    training = reference.Training(job)
    before = {name: parameter.clone() for name, parameter in training.student.named_parameters()}
    assert training.step() > 0
    changed = {name for name, now in training.student.named_parameters() if not torch.equal(now, before[name])}
    assert changed and all("attn2" in name for name in changed)


def test_images_from_the_same_noise_are_those_of_our_sampler(
    reference: ModuleType, job: Any, world: Manifest, tmp_path: Path
) -> None:
    concept = (RETAIN, OBJECTS[0])
    prompt = MINI.prompts.in_evaluation.prompt(*concept)
    folder = tmp_path / "embeddings"
    folder.mkdir()
    outcome = embed_prompts(EmbeddingsStage(prompts=["", prompt]), StageContext(folder, "digest", {"pipeline": world}))
    write_manifest(folder / "manifest.json", folder, "embeddings", "digest", outcome.files, outcome.facts)
    scheduler = MINI.sampling.scheduler.model_copy(update={"steps": job.sampling_steps})
    sampling = MINI.sampling.model_copy(update={"batch": 1, "scheduler": scheduler})
    settings = SamplesStage(sampling=sampling, wording=MINI.prompts.in_evaluation, grid=[(*concept, 188)])
    inputs = {"pipeline": world, "embeddings": read_manifest(folder / "manifest.json")}
    ours = Sampler(settings, StageContext(tmp_path, "digest", inputs)).images_of(settings.grid)[0]
    noise = initial_noise(settings.grid, (4, 8, 8))
    theirs = reference.sample_image(job, reference.load_pipeline(job), prompt, latents=noise)
    levels = np.asarray(theirs, dtype=np.float64)
    difference = np.abs(levels - 255 * ours.clamp(0, 1).permute(1, 2, 0).double().numpy())
    assert difference.max() < 1.5 and levels.std() > 10


def test_the_predicted_classes_are_those_of_our_classifiers(reference: ModuleType, job: Any) -> None:
    images = [Image.open(job.images / name).convert("RGB") for name, _, _ in job.prompts]
    for label, predicted in zip(("style", "object"), reference.classify_both(job), strict=True):
        assert predicted == shipped_classifier(label).probabilities(images).argmax(dim=1).tolist()
        assert len(set(predicted)) > 1


def test_features_and_their_distance_are_ours(reference: ModuleType, job: Any) -> None:
    found = reference.features(job, job.real, batch=2)
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(file), dtype=np.float32)) for file in job.real])
    ours = [shipped_classifier(label).features(pixels.permute(0, 3, 1, 2)) for label in ("style", "object")]
    np.testing.assert_allclose(found, torch.cat(ours, dim=1).numpy(), rtol=1e-4, atol=1e-5)
    rng = np.random.default_rng(0)
    sampled, real = rng.normal(size=(50, 8)), 1.5 * rng.normal(size=(60, 8)) + 0.2
    distance = frechet_distance(torch.from_numpy(sampled), torch.from_numpy(real))
    assert reference.frechet_distance(sampled, real) == pytest.approx(distance, rel=1e-9)


def test_a_job_is_the_same_after_it_was_written_and_read(reference: ModuleType, job: Any, tmp_path: Path) -> None:
    job.write(tmp_path / "job.json")
    again = reference.Job.read(tmp_path / "job.json")
    assert again == replace(
        job,
        prompts=[list(one) for one in job.prompts],
        classifiers={label: list(one) for label, one in job.classifiers.items()},
    )
