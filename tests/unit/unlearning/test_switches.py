"""Every ambiguity of the paper is an option of the study, and every option has an effect (docs/protocol.md)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file
from support.checkout import REPOSITORY
from support.small_world import PROMPTS, make_small_world, unlearning_settings

from corelib.data.latents import preprocess
from corelib.models.delta import DELTA_FILE
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext
from corelib.settings.data import Encoding
from corelib.settings.precision import TrainingPrecision
from corelib.study.loading import load_study
from corelib.study.plan import Plan
from corelib.study.published import load_published
from corelib.unlearning.trainer import unlearn

CONFIGURATION = REPOSITORY / "config"
PAPER = load_study("paper", CONFIGURATION)

# name of the option, overlay with another reading, stages whose own settings it changes
READINGS = [
    ("forgotten styles", "tasks: {Forget01: {forget: [Winter]}}", {"slices", "unlearning", "samples", "cells"}),
    (
        "retain styles in evaluation",
        "tasks: {Forget01: {evaluation: {retain: [Crayon, Rust]}}}",
        {"samples", "reference", "fid", "cells"},
    ),
    (
        "fewer objects in Forget25",
        "tasks: {Forget25: {evaluation: {objects: [Bears, Birds]}}}\nfigures: {figure2: null, figure3: null}",
        {"samples", "reference", "fid", "cells"},
    ),
    ("seeds", "tasks: {Forget01: {evaluation: {seeds: [188, 288]}}}", {"samples", "fid", "cells"}),
    ("retain set", "tasks: {Forget06: {retain: evaluated}}", {"slices", "unlearning"}),
    ("photos in the retain set", "tasks: {Forget06: {photos_in_retain: true}}", {"slices"}),
    (
        "the photos alone as the retain set",
        "tasks: {Forget06-unseen: {retain: [Seed_Images]}}\nanchoring: {base: Seed_Images}\n"
        "methods: {esd: &one {anchors: {Forget06-unseen: all_to_one}}, salun: *one, ediff: *one, ca_model: *one, "
        "ca_noise: *one}",
        {"slices", "unlearning"},
    ),
    ("epochs", "training: {batch_counts: both}", {"unlearning"}),
    ("norms", "training: {reduction: sum}", {"unlearning"}),
    ("doubled epochs", "methods: {ediff: {length: {Forget06-unseen: {epochs: 100}}}}", {"unlearning"}),
    ("one-to-one", "anchoring: {one_to_one: {Van_Gogh: Winter, %s}}", {"unlearning"}),
    ("base style", "anchoring: {base: Seed_Images}", {"unlearning"}),
    ("groups", "anchoring: {group: 4}", {"unlearning"}),
    ("random schemes", "anchoring: {draw: step}", {"unlearning"}),
    ("uniform", "methods: {ediff: {objective: {unlearn: {target: {low: -1.0}}}}}", {"unlearning"}),
    ("weight of EDiff", "methods: {ediff: {objective: {retain: {weight: 0.2}}}}", {"unlearning"}),
    ("stop-gradient", "methods: {salun: {objective: {unlearn: {target: {gradient: through}}}}}", {"unlearning"}),
    ("size of the mask", "methods: {salun: {saliency: {keep: 0.3}}}", {"saliency"}),
    ("threshold of the mask", "methods: {salun: {saliency: {keep: null, threshold: 0.1}}}", {"saliency"}),
    ("scope of the mask", "methods: {salun: {saliency: {scope: all}}}", {"saliency"}),
    ("loss of the mask", "methods: {salun: {saliency: {guidance_scale: 8.5}}}", {"saliency"}),
    ("images of CA", "methods: {ca_noise: {objective: {unlearn: {images: forget}}}}", {"unlearning"}),
    (
        "omega_t of CA: min-SNR",
        "methods: {ca_model: {objective: {unlearn: {weight: {kind: min_snr, scale: 1.0, gamma: 5.0}}}}}",
        {"unlearning"},
    ),
    (
        "omega_t of CA: 1 - alpha_bar",
        "methods: {ca_noise: {objective: {unlearn: {weight: {kind: one_minus_alpha_bar, scale: 1.0}}}}}",
        {"unlearning"},
    ),
    ("posterior of the target", "methods: {salun: {objective: {unlearn: {target: {posterior: own}}}}}", {"unlearning"}),
    ("distance of CA", "methods: {ca_model: {objective: {unlearn: {distance: norm}}}}", {"unlearning"}),
    ("precision of training", "training: {precision: {gpu: fp32}}", {"unlearning", "saliency"}),
    ("precision of sampling", "sampling: {precision: {gpu: bf16}}", {"samples"}),
    ("pixels", "encoding: {resolution: 256}", {"latents"}),
    ("handling of images in FID", "fid: {mode: legacy_tensorflow}", {"fid", "reference"}),
    ("reference of FID", "fid: {reference_images: [1, 2]}", {"fid", "reference"}),
    ("prompt of the photos", "prompts: {photo_in_evaluation: Photo}", {"samples", "embeddings"}),
    ("weights", "world: {assets: {weights: ema}}", {"assets"}),
    ("scale of learning rates", "training: {scale: {learning_rate: 2.0}}", {"unlearning"}),
    ("scale of lengths", "training: {scale: {length: 0.5}}", {"unlearning"}),
    ("least length", "training: {scale: {min_steps: 2000}}", {"unlearning"}),
]


def settings_of_stages(study: str, folder: Path) -> dict[str, set[str]]:
    """The settings of the runs of each stage, as canonical JSON, over all products of a study."""
    plan = Plan(study, load_study(study, folder), load_published(folder))
    settings: dict[str, set[str]] = {}
    for product in plan.products().values():
        for run in product.with_all_inputs().values():
            content = json.dumps(run.settings.model_dump(mode="json"), sort_keys=True)
            settings.setdefault(run.stage, set()).add(content)
    return settings


@pytest.fixture(scope="module")
def unchanged() -> dict[str, set[str]]:
    return settings_of_stages("paper", CONFIGURATION)


@pytest.mark.parametrize(("option", "overlay", "stages"), READINGS, ids=[option for option, *_ in READINGS])
def test_an_option_changes_the_settings_of_its_stages(
    option: str, overlay: str, stages: set[str], unchanged: dict[str, set[str]], tmp_path: Path
) -> None:
    shutil.copytree(CONFIGURATION, tmp_path / "config", ignore=shutil.ignore_patterns("pretrained"))
    if "%s" in overlay:  # every other forget style needs a partner too
        forget = sorted({style for task in PAPER.tasks.values() for style in task.forget} - {"Van_Gogh"})
        others = [style for style in PAPER.world.styles if style not in {*forget, "Van_Gogh", "Winter", "Seed_Images"}]
        overlay %= ", ".join(f"{style}: {anchor}" for style, anchor in zip(forget, [*others, *forget], strict=False))
    (tmp_path / "config" / "studies" / "other.yaml").write_text(overlay)
    other = settings_of_stages("other", tmp_path / "config")
    changed = {stage for stage in unchanged if unchanged[stage] != other.get(stage)}
    assert changed >= stages
    assert not changed & ({"assets", "slices", "latents", "embeddings"} - stages)


# The effect of options on training


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, torch.Tensor]]:
    """A function that trains a few steps in the small world and returns the tensors of the delta."""
    small_world = make_small_world(tmp_path_factory.mktemp("material"))

    def train(objective: Any, **changes: Any) -> dict[str, torch.Tensor]:
        inputs: dict[str, Manifest] = {
            role: small_world[role] for role in ("pipeline", "slice", "latents", "embeddings")
        }
        work = StageContext(tmp_path_factory.mktemp("run"), "digest", inputs, checkpoint_seconds=1e9)
        AcceleratorState._reset_state(reset_partial_state=True)  # a job is a separate process with one precision
        unlearn(unlearning_settings(objective, **changes), work)
        AcceleratorState._reset_state(reset_partial_state=True)
        return load_file(work.folder / DELTA_FILE)

    return train


def objective(method: str, **changes: Any) -> Any:
    """A method's objective with leaves of its unlearn term, its target or its retain term replaced."""
    content = PAPER.methods[method].objective.model_dump()
    for key, value in changes.items():
        section, leaf = key.split("__")
        unlearn, retain = content["unlearn"], content["retain"]
        leaves = {"unlearn": unlearn, "target": unlearn["target"], "retain": retain}[section]
        assert leaf in leaves
        leaves[leaf] = value
    return type(PAPER.methods[method].objective).model_validate(content)


@pytest.mark.parametrize(
    ("method", "switched", "changes"),
    [
        ("core", {}, {"batch_counts": "both"}),
        ("core", {}, {"reduction": "sum"}),
        ("core", {}, {"draw": "step"}),
        ("core", {}, {"candidates": {"Amber": ["Cream"]}}),
        ("core", {}, {"precision": TrainingPrecision(gpu="bf16", cpu="bf16")}),
        ("core", {}, {"learning_rate": 2e-3}),
        ("core", {}, {"min_steps": 7}),
        ("core", {"retain__weight": 0.2}, {}),
        ("ediff", {"target__low": -1.0}, {}),
        ("ediff", {"retain__weight": 0.2}, {}),
        ("salun", {"target__gradient": "through"}, {}),
        ("core_live_target", {"target__gradient": "through"}, {}),
        ("ca_model", {"unlearn__images": "forget"}, {}),
        ("ca_model", {"unlearn__distance": "norm"}, {}),
        ("ca_model", {"unlearn__weight": {"kind": "min_snr", "scale": 1.0, "gamma": 0.5}}, {}),
        ("ca_noise", {"unlearn__weight": {"kind": "one_minus_alpha_bar", "scale": 1.0}}, {}),
        ("salun", {"target__posterior": "own"}, {}),
        ("ca_noise", {"unlearn__images": "forget"}, {}),
        ("esd", {"target__eta": 2.0}, {}),
    ],
    ids=str,
)
def test_an_option_of_training_changes_the_delta(
    method: str, switched: dict[str, Any], changes: dict[str, Any], trained: Callable[..., dict[str, torch.Tensor]]
) -> None:
    before, after = trained(objective(method)), trained(objective(method, **switched), **changes)
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(("resolution", "interpolation"), [(256, "bicubic"), (64, "bilinear"), (64, "lanczos")])
def test_an_option_of_encoding_changes_the_input_of_the_autoencoder(resolution: int, interpolation: Any) -> None:
    image = Image.effect_mandelbrot((96, 96), (-2, -1, 1, 1), 50).convert("RGB")
    default = preprocess(image, Encoding(resolution=64, interpolation="bicubic", batch=1))
    other = preprocess(image, Encoding(resolution=resolution, interpolation=interpolation, batch=1))
    assert other.shape == (3, resolution, resolution)
    assert default.shape != other.shape or not torch.equal(default, other)


def test_prompts_use_the_studys_names_of_the_photos() -> None:
    other = PROMPTS.model_copy(update={"photo_in_evaluation": "Photo"})
    assert PROMPTS.in_evaluation.prompt("Seed_Images", "Cats") == "A Cats image in Seed Images style."
    assert other.in_evaluation.prompt("Seed_Images", "Cats") == "A Cats image in Photo style."
    assert PROMPTS.in_training.prompt("Seed_Images", "Cats") == "A Cats image in Photo style."
