"""No weight file executes anything: every place in which a checkpoint may be a pickle gets one that would act."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from small_world import FP32, finish, make_classifier, make_pipeline

from corelib.artefacts import Manifest, sha256_of
from corelib.classifiers import ImageClassifier
from corelib.devices import Device
from corelib.diffusion import BaseModel
from corelib.errors import AssetError
from corelib.work import Outcome

PARTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "pytorch_model",
}


class Acts:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_the_pickle_does_act_where_nobody_minds(tmp_path: Path) -> None:
    """Else the tests below would say nothing."""
    torch.save({"weight": Acts(tmp_path / "acted")}, tmp_path / "file.bin")
    torch.load(tmp_path / "file.bin", weights_only=False)
    assert (tmp_path / "acted").exists()


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_the_pipeline_that_is_a_pickle_executes_nothing(part: str, tmp_path: Path) -> None:
    made = make_pipeline(tmp_path / "world")
    folder = made.folder / "pipeline" / part
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    torch.save({"weight": Acts(tmp_path / "acted")}, folder / f"{PARTS[part]}.bin")
    facts = {**made.facts, "parts": {**made.facts["parts"], part: sha256_of(folder)}}
    base = BaseModel(finish(made.folder, "pipeline", Outcome(["pipeline"], facts)))
    loads = {"unet": base.unet, "vae": base.autoencoder, "text_encoder": base.text_encoder}
    with pytest.raises(AssetError, match=f"{part}: not loadable as "):
        loads[part]()
    assert not (tmp_path / "acted").exists()


def test_a_classifier_that_is_a_pickle_executes_nothing(tmp_path: Path) -> None:
    made: Manifest = make_classifier(tmp_path / "classifier", "style", ["Amber", "Blue"])
    path = made.folder / "classifier.pth"
    torch.save({"model_state_dict": {"fc.weight": Acts(tmp_path / "acted")}}, path)
    network = {**made.facts["classifiers"]["style"], "sha256": sha256_of(path)}
    changed = finish(made.folder, "classifier", Outcome(["classifier.pth"], {"classifiers": {"style": network}}))
    with pytest.raises(AssetError, match="not loadable as plain weights"):
        ImageClassifier(changed, "style", Device(FP32, 1))
    assert not (tmp_path / "acted").exists()
