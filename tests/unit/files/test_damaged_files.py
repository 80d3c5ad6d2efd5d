"""Every reader, fuzzed by edits of a valid file: it reads the file, or raises an error of one sentence."""

from __future__ import annotations

import io
import json
import logging
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from support import records
from support.checkout import REPOSITORY
from support.timing import time_limit

from corelib.data.embeddings import EmbeddingCache
from corelib.data.latents import LatentCache
from corelib.data.slices import read_slice
from corelib.errors import ArtefactError, AssetError, ConfigurationError, UserError
from corelib.evaluation.fid import read_features
from corelib.evaluation.predictions import read_predictions
from corelib.files.hashing import sha256_of_path
from corelib.files.image_files import decode_image
from corelib.files.json_files import write_json
from corelib.files.sealed_json import sealed, write_record
from corelib.files.torch_files import read_safetensors
from corelib.models.classifier_checkpoint import read_classifier_weights
from corelib.models.delta import _read_header
from corelib.runs.checkpoint import Checkpoint
from corelib.runs.lease import Lease
from corelib.runs.lease_owner import read_owner
from corelib.runs.manifest import Manifest, read_manifest
from corelib.runs.provenance_record import Attempt, read_provenance
from corelib.runs.specification import read_specification
from corelib.sampling.collection import is_complete
from corelib.study.published import load_published
from corelib.study.shipped_world import load_shipped
from corelib.unlearning.masks import load_masks
from corelib.worlds.assets.asset_lock import Lock, LockedAsset, read_lock, write_lock
from corelib.worlds.assets.compvis import read_checkpoint
from corelib.worlds.assets.download import load_sources
from corelib.worlds.assets.image_index import (
    SEPARATE_FILE,
    ImageIndex,
    ImageLocation,
    RequiredImages,
    read_index,
    write_index,
)
from corelib.worlds.assets.index_building import image_fault, index_images

MAX_GROWTH = 500 * 1024  # KiB


@dataclass(frozen=True)
class Reader:
    """A reader, the file that it reads, and its error for a damaged file."""

    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    error: type[UserError]
    name: str


def manifest_of(*paths: Path, **facts: Any) -> Manifest:
    """A manifest of the files in their present state, as an attacker would write it."""
    return records.manifest(paths[0].parent, {path.name: sha256_of_path(path) for path in paths}, facts)


CLASSIFIER_FACTS = {
    "architecture": "x", "classes": ["a", "b"], "resolution": 32, "sha256": "0" * 64, "weights": "x.pth",
}  # fmt: skip
SHIPPED = {
    "files": {"pipeline": "0" * 64},
    "facts": {
        "pipeline": "pipeline",
        "unet": "unet",
        "parts": {"unet": "0" * 64},
        "classifiers": {"style": CLASSIFIER_FACTS, "object": CLASSIFIER_FACTS},
    },
    "leaves": {"world.seed": 0},
    "drawing": "0" * 64,
    "provenance": {},
}


def write_latents(path: Path) -> None:
    save_file({"mean": torch.zeros(2, 4, 2, 2), "deviation": torch.ones(2, 4, 2, 2)}, path)
    write_json(path.with_name("images.json"), ["0" * 64, "1" * 64])


def read_latents(path: Path) -> Any:
    return LatentCache.of_run(
        manifest_of(path, path.with_name("images.json"), styles=["A"], objects=["B"], images=[1, 2], scaling_factor=1)
    )


def write_embeddings(path: Path) -> None:
    save_file({"embeddings": torch.zeros(2, 3, 4)}, path)
    write_json(path.with_name("prompts.json"), ["", "a"])


def read_embeddings(path: Path) -> Any:
    return EmbeddingCache.of_run(manifest_of(path, path.with_name("prompts.json"))).of(["a"])


def write_predictions(path: Path) -> None:
    row = {"style": "A", "object": "B", "seed": 1, "predicted_style": "A", "predicted_object": "B", "flagged": False}
    pd.DataFrame([row, row]).to_parquet(path, index=False)


def write_images(path: Path) -> None:
    images = [{"bytes": as_image("JPEG", seed), "path": "x"} for seed in (0, 1)]
    captions = ["A Cats image in Amber style.", "A Dogs image in Amber style."]
    pq.write_table(pa.table({"image": images, "text": captions}), path)


def read_images(path: Path) -> Any:
    folder = path.parent / "shards"
    folder.mkdir(exist_ok=True)
    shutil.copy(path, folder / "x.parquet")
    return index_images(
        folder, RequiredImages(["Amber"], ["Cats", "Dogs"], 1), "Seed_Images", 1, path.parent / "faults.txt"
    )


def as_image(name: str, seed: int = 0) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, format=name)
    return stream.getvalue()


def read_an_image(path: Path) -> Any:
    content = path.read_bytes()
    fault = image_fault(content)
    assert fault is None or "\n" not in fault
    return decode_image(content, str(path))


def write_specification(path: Path) -> None:
    planned = records.specification("x", "x", {"a": "x/y-0123456789ab"}, settings={"a": [1]})
    write_record(path, planned)


def write_provenance(path: Path) -> None:
    planned = records.specification("x", "x", {"a": "x/y-0123456789ab"})
    attempt = Attempt.model_validate(
        {
            **dict.fromkeys(("host", "device", "processor"), "x"),
            "began": "2026-01-02",
            "node": None,
            "scheduler_job": "7",
        }
    )
    write_record(path, records.provenance(planned, records.manifest_record(planned), earlier_attempts=[attempt]))


def saved(content: Any, is_new: bool = True) -> Callable[[Path], None]:
    return lambda path: torch.save(content, path, _use_new_zipfile_serialization=is_new)


def read_a_checkpoint(path: Path) -> Any:
    """Read a checkpoint. A damaged one is no error, because the run then starts from the beginning."""
    state = Checkpoint(path, "me", 60.0).load()
    if state is not None and "step" in state:
        assert (state["step"], state["x"].tolist()) == (7, [1.0, 2.0])


def masks(path: Path) -> Any:
    return load_masks(manifest_of(path), {"a": torch.nn.Parameter(torch.zeros(3))})


def copied(name: str) -> Callable[[Path], None]:
    return lambda path: Path(shutil.copy(REPOSITORY / "config" / name, path)).touch()


MANIFEST = {
    "stage": "x",
    "digest": "x",
    "files": {"a": "0"},
    "trained": {"x/y-0123456789ab": "d"},
    "inputs": {},
    "facts": {"a": {"b": [1, 2.5, None]}},
}


class TwoClasses(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3, 2)


SLICE = {"forget": [["A", "B", 1, "0"]], "retain": [["C", "B", 1, "1"]]}
CLASSIFIER = {"model_state_dict": {"head.weight": torch.zeros(2, 3), "head.bias": torch.zeros(2)}}
COMPVIS = {"state_dict": {"model.diffusion_model.x": torch.zeros(3)}, "epoch": 3, "callbacks": {"a": [1, None]}}
STATE = {"owner": "me", "state": {"step": 7, "x": torch.tensor([1.0, 2.0])}}
INDEX = ImageIndex(
    {("A", "B", index): ImageLocation(f"A/B/{index}.jpg", SEPARATE_FILE, 1, "0" * 64) for index in (1, 2)}
)
LOCK = Lock(revisions={"a": "b"}, assets={"x": LockedAsset(sha256="0" * 64, bytes=1, files={}, source="x")})

READERS: dict[str, Reader] = {
    "manifest": Reader(lambda path: write_json(path, sealed(MANIFEST)), read_manifest, ArtefactError, "manifest.json"),
    "specification": Reader(write_specification, read_specification, ArtefactError, "specification.json"),
    "provenance record": Reader(write_provenance, read_provenance, ArtefactError, "manifest.provenance.json"),
    "slice": Reader(lambda path: write_json(path, SLICE), read_slice, ArtefactError, "slice.json"),
    "record of a batch": Reader(
        lambda path: write_json(path, sealed({"images": {"a": "0"}, "flagged": [], "trained": {}})),
        lambda path: is_complete(path, {}),
        ArtefactError,
        "00000.json",
    ),
    # a renewal would notice the damage, and end the tests
    "lease": Reader(lambda path: Lease(path, renewal=1e6).take(0), read_owner, ArtefactError, "manifest.lease"),
    "lock of assets": Reader(
        lambda path: write_lock(path.parent, LOCK), lambda path: read_lock(path.parent), AssetError, "assets.lock.json"
    ),
    "sources of assets": Reader(
        copied("assets.yaml"), lambda path: load_sources(path.parent), ConfigurationError, "assets.yaml"
    ),
    "the paper's numbers": Reader(
        copied("published.csv"), lambda path: load_published(path.parent), ConfigurationError, "published.csv"
    ),
    "shipped world": Reader(
        lambda path: write_json(path, SHIPPED),
        lambda path: load_shipped(path.parent.parent), ConfigurationError, "pretrained/world.json",
    ),
    "classifier": Reader(
        saved(CLASSIFIER), lambda path: read_classifier_weights(path, TwoClasses(), 2), AssetError, "x.pth"
    ),
    "classifier of the old format": Reader(
        saved(CLASSIFIER, is_new=False),
        lambda path: read_classifier_weights(path, TwoClasses(), 2),
        AssetError,
        "x.pth",
    ),
    "CompVis": Reader(saved(COMPVIS), read_checkpoint, AssetError, "x.ckpt"),
    "CompVis as safetensors": Reader(
        lambda path: save_file(COMPVIS["state_dict"], path), read_checkpoint, AssetError, "x.safetensors"
    ),
    "checkpoint": Reader(saved(STATE), read_a_checkpoint, ArtefactError, "checkpoint.pt"),
    "latents": Reader(write_latents, read_latents, ArtefactError, "moments.safetensors"),
    "embeddings": Reader(write_embeddings, read_embeddings, ArtefactError, "embeddings.safetensors"),
    "masks": Reader(
        lambda path: save_file({"a": torch.zeros(3, dtype=torch.bool)}, path), masks, ArtefactError, "mask.safetensors"
    ),
    "features": Reader(
        lambda path: save_file({"features": torch.zeros(2, 3, dtype=torch.float64)}, path),
        lambda path: read_features(path, 3), ArtefactError, "features.safetensors",
    ),
    "tensors": Reader(
        lambda path: save_file({"a": torch.zeros(3)}, path), read_safetensors, ArtefactError, "x.safetensors"
    ),
    "predictions": Reader(
        write_predictions, lambda path: read_predictions(manifest_of(path)), ArtefactError, "predictions.parquet"
    ),
    "index of images": Reader(lambda path: write_index(path, INDEX), read_index, ArtefactError, "images.parquet"),
    "images of the Hub": Reader(write_images, read_images, AssetError, "x.parquet"),
    "JPEG": Reader(lambda path: path.write_bytes(as_image("JPEG")) and None, read_an_image, AssetError, "x.jpg"),
    "PNG": Reader(lambda path: path.write_bytes(as_image("PNG")) and None, read_an_image, AssetError, "x.jpg"),
}  # fmt: skip


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The undamaged files."""
    found = {}
    for number, (name, reader) in enumerate(READERS.items()):
        path = tmp_path_factory.mktemp(f"reader{number}") / reader.name
        path.parent.mkdir(exist_ok=True)
        reader.make(path)
        reader.read(path)
        found[name] = path
    return found


edits = st.one_of(
    st.tuples(st.just("cut"), st.floats(0, 1), st.just(b"")),
    st.tuples(st.just("extend"), st.floats(0, 1), st.binary(min_size=1, max_size=40)),
    st.tuples(st.just("replace"), st.floats(0, 1), st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("insert"), st.floats(0, 1), st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("flip"), st.floats(0, 1), st.binary(min_size=1, max_size=1)),
    st.tuples(st.just("anything"), st.floats(0, 1), st.binary(max_size=200)),
)


def apply_edits(content: bytes, made: list[tuple[str, float, bytes]]) -> bytes:
    for kind, where, new in made:
        place = round(where * len(content))
        if kind == "cut":
            content = content[:place]
        elif kind == "extend":
            content += new
        elif kind == "replace":
            content = content[:place] + new + content[place + len(new) :]
        elif kind == "insert":
            content = content[:place] + new + content[place:]
        elif kind == "flip" and place < len(content):
            content = content[:place] + bytes([content[place] ^ (1 << new[0] % 8)]) + content[place + 1 :]
        elif kind == "anything":
            content = new
    return content


def check(reader: Reader, path: Path, made: list[tuple[str, float, bytes]]) -> None:
    content = path.read_bytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message = ""
    logging.disable()
    try:
        path.write_bytes(apply_edits(content, made))
        with time_limit():
            reader.read(path)
    except reader.error as error:
        message = str(error)
    finally:
        logging.disable(logging.NOTSET)
        path.write_bytes(content)
    assert "\n" not in message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(made=st.lists(edits, min_size=1, max_size=3))
def test_a_damaged_file_is_reported_in_one_sentence(
    valid: dict[str, Path], name: str, made: list[tuple[str, float, bytes]]
) -> None:
    check(READERS[name], valid[name], made)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(made=st.lists(edits, min_size=1, max_size=5))
def test_hundreds_of_damaged_files_are_reported_in_one_sentence_each(
    valid: dict[str, Path], name: str, made: list[tuple[str, float, bytes]]
) -> None:
    check(READERS[name], valid[name], made)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(made=st.lists(edits, min_size=1, max_size=2))
def test_files_of_a_manifest_are_unchanged_or_refused(
    tmp_path_factory: pytest.TempPathFactory, made: list[tuple[str, float, bytes]]
) -> None:
    path = tmp_path_factory.mktemp("vouched") / "file"
    path.write_bytes(content := bytes(range(100)))
    manifest = manifest_of(path)
    path.write_bytes(apply_edits(content, made))
    try:
        manifest.file("file")
        unchanged = True
    except ArtefactError:
        unchanged = False
    assert unchanged == (path.read_bytes() == content)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
)
DOCUMENTS = [
    "manifest", "specification", "provenance record", "slice", "record of a batch", "lease", "lock of assets",
    "shipped world",
]  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_document_with_a_changed_value_is_reported_in_one_sentence(
    valid: dict[str, Path], name: str, data: st.DataObject
) -> None:
    document = json.loads(valid[name].read_text())
    key = data.draw(st.sampled_from(sorted(document)))
    changed = {**document, key: data.draw(json_values)}
    if "seal" in document and key != "seal":  # the seal is not secret: an attacker seals a changed document as well
        changed = sealed({name: value for name, value in changed.items() if name != "seal"})
    check(READERS[name], valid[name], [("anything", 0.0, json.dumps(changed).encode())])


headers = st.dictionaries(st.sampled_from(["delta", "x"]), st.text(max_size=30) | json_values.map(json.dumps))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(header=headers | st.none())
def test_a_delta_with_another_header_is_reported_in_one_sentence(header: dict[str, str] | None) -> None:
    with pytest.raises(ArtefactError, match="not a delta"):
        _read_header(Path("x"), header)
