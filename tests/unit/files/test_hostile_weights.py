"""No weight file executes code: every checkpoint that may be a pickle is replaced by one that would execute code."""

from __future__ import annotations

import argparse
import collections
import datetime
import os
import random
import re
import types
import uuid
import zipfile
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pytest
import torch
from support.small_world import FP32, finish, make_classifier, make_pipeline

from corelib.errors import AssetError
from corelib.files.hashing import sha256_of_path
from corelib.files.torch_files import read_plain_weights
from corelib.models.base_model import BaseModel
from corelib.models.classifier import ImageClassifier
from corelib.models.device import Device
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageResult

PARTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "pytorch_model",
}


class Acts:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_the_pickle_executes_code_in_an_unrestricted_unpickler(tmp_path: Path) -> None:
    """Otherwise the tests below would prove nothing."""
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
    facts = {**made.facts, "parts": {**made.facts["parts"], part: sha256_of_path(folder)}}
    base = BaseModel(finish(made.folder, "pipeline", StageResult(["pipeline"], facts)))
    loads = {"unet": base.unet, "vae": base.autoencoder, "text_encoder": base.text_encoder}
    with pytest.raises(AssetError, match=f"{part}: not loadable as "):
        loads[part]()
    assert not (tmp_path / "acted").exists()


def test_a_classifier_that_is_a_pickle_executes_nothing(tmp_path: Path) -> None:
    made: Manifest = make_classifier(tmp_path / "classifier", "style", ["Amber", "Blue"])
    path = made.folder / "classifier.pth"
    torch.save({"model_state_dict": {"fc.weight": Acts(tmp_path / "acted")}}, path)
    network = {**made.facts["classifiers"]["style"], "sha256": sha256_of_path(path)}
    changed = finish(made.folder, "classifier", StageResult(["classifier.pth"], {"classifiers": {"style": network}}))
    with pytest.raises(AssetError, match="not loadable as plain weights"):
        ImageClassifier.of_run(changed, "style", Device(FP32, 1))
    assert not (tmp_path / "acted").exists()


# Objects that training scripts save beside weights


SAVED_OBJECTS: dict[str, Any] = {
    "accuracy": np.float64(0.98),
    "epoch": np.int64(7),
    "curve": np.arange(3.0),
    "a list of numbers of numpy": [np.float32(1), np.bool_(True)],
    "numpy's random state": np.random.RandomState(0).get_state(),
    "Python's random state": random.Random(0).getstate(),
    "arguments": argparse.Namespace(lr=1e-3, output=Path("runs/x"), classes=["a"]),
    "namespace": types.SimpleNamespace(seed=1),
    "history": collections.defaultdict(list, {"loss": [1.0, 0.5]}),
    "last losses": collections.deque([1.0, 2.0], maxlen=5),
    "counts": collections.Counter("aab"),
    "path": Path("/data/unlearn_canvas"),
    "path of Windows": PureWindowsPath("C:/data"),
    "began": datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC),
    "took": datetime.timedelta(hours=3),
    "version": torch.torch_version.TorchVersion("2.1.0"),
    "id": uuid.UUID(int=3),
    "sizes": range(3),
    "frozen": frozenset({"head"}),
    "dtype of numpy": np.dtype("f4"),
    "type of numpy": np.float32,
}


@pytest.mark.parametrize("is_new", [True, False], ids=["archive", "old format"])
@pytest.mark.parametrize("name", SAVED_OBJECTS)
def test_objects_that_a_training_script_saves_beside_its_weights_are_ignored(
    name: str, is_new: bool, tmp_path: Path
) -> None:
    weights = {"fc.weight": torch.arange(6.0).reshape(2, 3)}
    content = {"model_state_dict": weights, name: SAVED_OBJECTS[name], "nested": {"more": [SAVED_OBJECTS[name]]}}
    torch.save(content, tmp_path / "style50.pth", _use_new_zipfile_serialization=is_new)
    found = read_plain_weights(tmp_path / "style50.pth", "weights")
    assert found.keys() == content.keys()
    assert torch.equal(found["model_state_dict"]["fc.weight"], weights["fc.weight"])
    assert type(found[name]).__module__ != "pathlib" and not isinstance(found[name], argparse.Namespace)


@pytest.mark.parametrize(
    "act",
    ["builtins.eval", "builtins.exec", "builtins.getattr", "builtins.open", "os.system", "subprocess.Popen"],
)
@pytest.mark.parametrize("inside", ["argparse.Namespace", "collections.defaultdict", "numpy._core.multiarray.scalar"])
def test_code_inside_ignored_objects_is_refused(act: str, inside: str, tmp_path: Path) -> None:
    """A stub accepts any arguments, but the names in them are checked like all others."""
    path = tmp_path / "file.pth"
    torch.save({"x": torch.zeros(1)}, path)
    module, name = act.rsplit(".", 1)
    marker = tmp_path / "acted"
    called = f"c{module}\n{name}\nX{chr(len(str(marker)))}\0\0\0{marker}\x85R".encode("latin-1")
    outer, kind = inside.rsplit(".", 1)
    program = b"\x80\x02" + f"c{outer}\n{kind}\n".encode() + called + b"\x85R."
    replace_pickle(path, program)
    with pytest.raises(AssetError, match=rf"it names {re.escape(act)}, which weights do not need"):
        read_plain_weights(path, "weights")
    assert not marker.exists()


def replace_pickle(path: Path, program: bytes) -> None:
    """Replace the pickle of an archive."""
    with zipfile.ZipFile(path) as archive:
        records = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, program if name.endswith("data.pkl") else content)
