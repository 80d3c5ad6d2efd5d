"""CLIP as a judge: the same probabilities as transformers' own model, and no weights that do not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.small_world import make_clip
from transformers import CLIPModel, CLIPProcessor

from corelib.errors import AssetError
from corelib.models.zero_shot import ZeroShotClassifier, check_clip

CLASSES = ["cat", "dog", "horse"]
TEXTS = [f"a photo of a {name}" for name in CLASSES]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "clip", [*TEXTS, "a very long text about a cat"])


def images() -> list[Image.Image]:
    draw = np.random.default_rng(0)
    sizes = [(40, 40), (64, 48), (32, 32), (17, 90)]
    return [Image.fromarray(draw.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


def test_probabilities_are_those_of_transformers(clip: Path) -> None:
    judge = ZeroShotClassifier(clip, CLASSES, TEXTS, CPU)
    model, processor = CLIPModel.from_pretrained(clip).eval(), CLIPProcessor.from_pretrained(clip)
    with torch.no_grad():
        outputs = model(**processor(text=TEXTS, images=images(), return_tensors="pt", padding=True))
    expected = outputs.logits_per_image.softmax(dim=1)
    probabilities = judge.probabilities(images())
    assert judge.classes == CLASSES
    torch.testing.assert_close(probabilities, expected, rtol=1e-5, atol=1e-6)
    assert probabilities.std() > 1e-4, "the images are told apart"


def test_an_image_has_the_same_probabilities_alone_and_in_a_batch(clip: Path) -> None:
    judge = ZeroShotClassifier(clip, CLASSES, TEXTS, CPU)
    together = judge.probabilities(images())
    alone = torch.cat([judge.probabilities([image]) for image in images()])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_position_ids_of_older_versions_are_accepted(clip: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(clip, tmp_path / "clip")
    tensors = load_file(folder / "model.safetensors")
    tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    tensors["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    save_file(tensors, folder / "model.safetensors")
    check_clip(folder, values=True)
    first, second = (ZeroShotClassifier(place, CLASSES, TEXTS, CPU).probabilities(images()) for place in (clip, folder))
    assert torch.equal(first, second)


def test_the_files_of_older_versions_are_read_as_transformers_reads_them(clip: Path, tmp_path: Path) -> None:
    """As of OpenAI's models on the Hub: sizes as numbers, a former class name, keys that are not used any more."""
    folder = shutil.copytree(clip, tmp_path / "clip")
    processor = {"crop_size": 32, "do_center_crop": True, "do_normalize": True, "do_resize": True, "resample": 3}
    processor |= {"feature_extractor_type": "CLIPFeatureExtractor", "size": 32}
    processor |= {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"eos_token_id": 2, "bos_token_id": 0, "torchscript": False, "use_bfloat16": False}
    given = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
    sight = {key: config["vision_config"][key] for key in given}
    config |= {"text_config_dict": None, "vision_config_dict": sight, "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    check_clip(folder, values=True)
    model, plain = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)
    with torch.no_grad():
        outputs = model(**plain(text=TEXTS, images=images(), return_tensors="pt", padding=True))
    expected = outputs.logits_per_image.softmax(dim=1)
    probabilities = ZeroShotClassifier(folder, CLASSES, TEXTS, CPU).probabilities(images())
    torch.testing.assert_close(probabilities, expected, rtol=1e-5, atol=1e-6)


def without(name: str, folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors")


def with_nan(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["visual_projection.weight"][0, 0] = torch.nan
    save_file(tensors, folder / "model.safetensors")


def of_another_kind(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "architectures": ["SiglipModel"]}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: without("logit_scale", folder), "lacks 1 of .* tensors: logit_scale"),
        (lambda folder: without("text_model.final_layer_norm.bias", folder), "lacks 1 of"),
        (with_nan, "not finite: visual_projection.weight"),
        (of_another_kind, "it configures 'SiglipModel', expected CLIPModel"),
        (
            lambda folder: (folder / "preprocessor_config.json").unlink(),
            "preprocessor_config.json: the file is",
        ),
        (lambda folder: (folder / "tokenizer_config.json").unlink(), "tokenizer_config.json: the file is missing"),
        (lambda folder: (folder / "model.safetensors").unlink(), "it has no weights"),
    ],
)
def test_a_folder_that_is_not_exactly_a_clip_model_is_refused(damage, message: str, clip: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(clip, tmp_path / "clip")
    damage(folder)
    with pytest.raises(AssetError, match=message):
        check_clip(folder, values=True)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clip.pt").write_bytes(b"")
    with pytest.raises(AssetError, match="a file, expected a folder with CLIP's configuration"):
        check_clip(tmp_path / "clip.pt", values=False)
