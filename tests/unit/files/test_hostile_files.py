"""Untrusted files: none leads out of its folder, and none takes more memory or time than its size justifies."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, PngImagePlugin
from support import records
from support.checkout import REPOSITORY
from support.small_world import FP32, finish, make_classifier, make_images, make_pipeline
from support.timing import time_limit

from corelib.errors import ArtefactError, AssetError, ConfigurationError, UserError
from corelib.files.hashing import sha256_of_path
from corelib.files.image_files import decode_image, read_image
from corelib.files.json_files import read_json, write_json
from corelib.files.paths import path_inside
from corelib.files.sealed_json import sealed, write_record
from corelib.files.torch_files import load_pickled, read_plain_weights
from corelib.maintenance import unneeded_runs
from corelib.models.base_model import BaseModel
from corelib.models.classifier import ImageClassifier
from corelib.models.device import Device
from corelib.runs.input_runs import read_inputs
from corelib.runs.manifest import Manifest, matches_files, read_manifest
from corelib.runs.specification import read_specification
from corelib.runs.stage_context import StageContext, StageResult
from corelib.sampling.collection import image_paths, is_complete
from corelib.settings.pretrained import PretrainedStage
from corelib.worlds.assets.download import load_sources
from corelib.worlds.assets.index_building import caption_parser, image_fault
from corelib.worlds.benchmark_images import ImageFolder
from corelib.worlds.miniature.shipped_models import adopt_pretrained

# Paths


OUTWARD = [
    "../x",
    "/etc/passwd",
    "a/../../x",
    "a/..",
    "..",
    ".",
    "",
    "a\nb",
    "a\x00b",
    "x" * 5000,
    "\ud800",
    3,
    None,
    ["x"],
]


@pytest.mark.parametrize("name", OUTWARD, ids=lambda name: repr(name)[:20])
def test_a_name_that_leads_out_of_its_folder_is_refused(tmp_path: Path, name: object) -> None:
    with pytest.raises(ArtefactError, match=r"leads out of its folder") as caught:
        path_inside(tmp_path / "run", name)
    assert "\n" not in str(caught.value)


def test_a_link_may_lead_anywhere_inside_its_folder_but_not_out_of_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "images").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (run / "inside").symlink_to("images")
    (run / "outside").symlink_to("../secret")
    (run / "circle").symlink_to("circle")
    assert path_inside(run, "inside/1.jpg") == run / "inside/1.jpg"
    for name in ("outside", "circle", "circle/x"):
        with pytest.raises(ArtefactError, match="it leads out of"):
            path_inside(run, name)


def test_a_folder_of_runs_may_itself_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "large disk/run").mkdir(parents=True)
    (tmp_path / "runs").symlink_to("large disk")
    assert path_inside(tmp_path / "runs/run", "x") == tmp_path / "runs/run/x"


def manifest(folder: Path, files: dict[str, str], facts: dict[str, Any] | None = None) -> Manifest:
    write_json(
        folder / "manifest.json",
        sealed({"stage": "x", "digest": "x", "files": files, "facts": facts or {}, "trained": {}, "inputs": {}}),
    )
    return read_manifest(folder / "manifest.json")


def test_a_manifest_vouches_for_nothing_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    sha256 = sha256_of_path(tmp_path / "secret")
    run = tmp_path / "run"
    (run / "images").mkdir(parents=True)
    (run / "images/1.jpg").symlink_to("../../secret")
    (run / "link").symlink_to("../secret")
    made = manifest(run, {"../secret": sha256, "link": sha256, "images": sha256_of_path(run / "images")})
    for name in made.files:
        with pytest.raises(ArtefactError, match="out of"):
            made.file(name)
    for name in ("../secret", "link"):
        assert not matches_files(manifest(run, {name: sha256}), run, "x")


def test_the_users_files_are_reached_only_through_a_link_at_the_top_of_the_runs_folder(tmp_path: Path) -> None:
    (tmp_path / "assets/unet").mkdir(parents=True)
    (tmp_path / "assets/unet/config.json").write_text("{}")
    run = tmp_path / "run"
    (run / "made").mkdir(parents=True)
    (run / "pipeline").symlink_to("../assets")
    (run / "made/unet").symlink_to("../../assets/unet")
    made, sha256 = manifest(run, {}), sha256_of_path(tmp_path / "assets/unet")
    assert made.verified_external("pipeline/unet", sha256).name == "unet"
    for name in ("made/unet", "pipeline/../../secret", "/etc", "pipeline/../made/unet"):
        with pytest.raises(ArtefactError, match="out of"):
            made.verified_external(name, sha256)


@pytest.mark.parametrize("name", ["pipe", "/dev/zero"])
def test_reading_a_pipe_or_a_device_in_the_place_of_a_file_does_not_block(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file"
    if name == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(name)
    readers: list[Callable[[], Any]] = [
        lambda: read_json(path),
        lambda: read_image(path),
        lambda: read_plain_weights(path, "weights"),
        lambda: records.manifest(tmp_path, {"file": "0"}).file("file"),
    ]
    for reader in readers:
        with pytest.raises(UserError, match=r"regular file|leads out of"):
            reader()


STRANGE_NAMES = ["../../x", "/../../../etc", "a/../../../b", "a\nb", "x" * 2000]


@pytest.mark.parametrize("name", STRANGE_NAMES, ids=lambda name: repr(name)[:12])
def test_no_style_or_object_is_a_path(tmp_path: Path, name: str) -> None:
    images = make_images(tmp_path / "world")
    for style, object_ in ((name, "Cats"), ("Amber", name)):
        with pytest.raises(ArtefactError, match="leads out of"):
            ImageFolder(images).read(style, object_, 1)
    (tmp_path / "samples/images").mkdir(parents=True)
    sha256 = sha256_of_path(tmp_path / "samples/images")
    for image in ([name, "Cats", 1], ["Amber", name, 1]):
        with pytest.raises(ArtefactError, match="leads out of"):
            image_paths(manifest(tmp_path / "samples", {"images": sha256}, {"grid": [image]}))
    assert not is_complete(record(tmp_path / "samples", {name: "0"}), {})


def record(run: Path, images: dict[str, str]) -> Path:
    write_json(run / "batches/00000.json", sealed({"images": images, "flagged": [], "trained": {}}))
    return run / "batches/00000.json"


@pytest.mark.parametrize("grid", [[["Amber", "Cats"]], [1], "abc", [["Amber", "Cats", "x"]], None])
def test_a_grid_of_another_form_is_reported_in_one_sentence(tmp_path: Path, grid: object) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(ArtefactError, match="its grid is not a list"):
        image_paths(manifest(tmp_path, {"images": sha256_of_path(tmp_path / "images")}, {"grid": grid}))


@pytest.mark.parametrize(
    "name", ["../../etc/x-0123456789ab", "a/../b", "/etc", "a", 3, "a/b-0123456789ab/c", "A/b-0123456789ab"]
)
def test_a_specification_can_only_name_runs(tmp_path: Path, name: object) -> None:
    path = tmp_path / "specification.json"
    whole = records.specification("x", "x", {"a": "x/y-0123456789ab"})
    write_record(path, whole)
    assert read_specification(path) == whole
    for part, role in (("builds_on", "a"), ("after", "b")):
        write_json(path, sealed({**whole.content, part: {role: name}}))
        reason = "is not the name of a run, expected STAGE/SLUG-DIGEST" if isinstance(name, str) else "valid string"
        with pytest.raises(ArtefactError, match=rf"not a specification \(`{part}\.{role}`: .*{reason}\); delete it"):
            read_specification(path)


def test_a_run_builds_only_on_runs_with_the_planned_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs/x/y-0123456789ab"
    run.mkdir(parents=True)
    manifest(run, {})  # with the digest x
    builds_on = {"a": "x/y-0123456789ab"}
    assert read_inputs(records.specification(builds_on=builds_on, inputs={"a": "x"}))["a"].digest == "x"
    with pytest.raises(ArtefactError, match="it is the manifest of the run x, expected other as a"):
        read_inputs(records.specification(builds_on=builds_on, inputs={"a": "other"}))


def test_clean_removes_nothing_through_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "precious/thesis").mkdir(parents=True)
    (tmp_path / "work/runs/latents/old-0123456789ab").mkdir(parents=True)
    (tmp_path / "work/runs/evil").symlink_to("../../precious")
    (tmp_path / "work/runs/latents/evil").symlink_to("../../../precious/thesis")
    (tmp_path / "work/results").mkdir()
    write_json(tmp_path / "work/results/table1.json", {"stage": "../../precious", "digest": "thesis"})
    write_json(tmp_path / "work/results/table2.json", {"stage": 1, "digest": ["x"]})
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(unneeded_runs, "study_names", lambda _: [])
    with pytest.raises(ArtefactError, match=r"results/table1\.json: neither it nor its provenance record names"):
        unneeded_runs.unnamed_runs(tmp_path)
    shutil.rmtree("results")
    found = unneeded_runs.unnamed_runs(tmp_path)
    assert [str(run.path) for run in found.runs] == ["runs/latents/old-0123456789ab"]
    assert [line.partition(":")[0] for line in found.left_alone] == ["runs/evil", "runs/latents/evil"]


@pytest.mark.parametrize("place", [("/etc", "x"), ("..", "x"), ("assets", "../../x"), ("a/../..", "x")])
def test_nothing_is_downloaded_outside_the_working_directory(tmp_path: Path, place: tuple[str, str]) -> None:
    row = {"what": "x", "url": "https://example.org/x", "gigabytes": 1.0, "licence": "x"}
    row |= {"folder": place[0], "path": place[1]}
    (tmp_path / "assets.yaml").write_text(json.dumps({"inception": row}))
    with pytest.raises(ConfigurationError, match="expected a path inside this folder"):
        load_sources(tmp_path)


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd"])
def test_a_shipped_world_is_copied_only_from_its_folder(tmp_path: Path, name: str) -> None:
    settings = PretrainedStage(files={name: "0" * 64}, facts={})
    with pytest.raises(ArtefactError, match="leads out of"):
        adopt_pretrained(settings, StageContext(folder=tmp_path, digest="x", inputs={}))


@pytest.mark.parametrize("name", ["../../secret.safetensors", "/etc/passwd"])
def test_weights_in_several_files_must_be_in_their_folder(tmp_path: Path, name: str) -> None:
    made = make_pipeline(tmp_path / "world")
    folder = made.folder / "pipeline/unet"
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"conv_in.weight": name}}
    write_json(folder / "diffusion_pytorch_model.safetensors.index.json", index)
    facts = {**made.facts, "parts": {**made.facts["parts"], "unet": sha256_of_path(folder)}}
    base = BaseModel(finish(made.folder, "pipeline", StageResult(["pipeline"], facts)))
    with pytest.raises(AssetError, match="leads out of its folder"):
        base.unet()


NETWORKS = {
    "of the Hub": {"architecture": "hf-hub:somebody/something"},
    "of a folder": {"architecture": "local-dir:/tmp"},
    "of no name": {"architecture": 3},
    "of huge images": {"resolution": 10**6},
    "of no classes": {"classes": [1]},
}


@pytest.mark.parametrize("change", NETWORKS.values(), ids=NETWORKS)
def test_a_classifiers_facts_load_nothing_but_its_weights(tmp_path: Path, change: dict[str, Any]) -> None:
    made = make_classifier(tmp_path / "classifier", "style", ["Amber", "Blue"])
    facts = {"classifiers": {"style": {**made.facts["classifiers"]["style"], **change}}}
    with pytest.raises(ArtefactError, match="invalid description of the style classifier"):
        ImageClassifier.of_run(
            finish(made.folder, "classifier", StageResult(["classifier.pth"], facts)), "style", Device(FP32, 1)
        )


@pytest.mark.parametrize("lacking", ["stage", "digest", "files", "facts", "trained", "inputs"])
def test_a_manifest_without_a_part_is_reported_in_one_sentence(tmp_path: Path, lacking: str) -> None:
    whole = {"stage": "x", "digest": "x", "files": {}, "facts": {"a": {"b": 1}}, "trained": {}, "inputs": {}}
    write_json(tmp_path / "manifest.json", sealed(whole))
    facts = read_manifest(tmp_path / "manifest.json").facts
    assert facts["a"]["b"] == 1
    with pytest.raises(ArtefactError, match=r"manifest\.json: it lacks `c`"):
        facts["a"]["c"]
    for value in (None, 3, []):
        write_json(tmp_path / "manifest.json", sealed({**whole, lacking: value}))
        with pytest.raises(ArtefactError, match=f"not a manifest .`{lacking}`: "):
            read_manifest(tmp_path / "manifest.json")


# Weights


class Calls:
    """Pickled as a call of a function or class."""

    def __init__(self, called: Any, *arguments: Any) -> None:
        self.call = called, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


class Keeps:
    """Pickled as a tensor whose values are replaced afterwards."""

    def __reduce__(self) -> tuple[Any, ...]:
        storage = torch.zeros(2).storage()
        return torch._utils._rebuild_tensor_v2, (storage, 0, (2,), (1,), False, {}), (storage, 0, (10**9,), (1,))


def nested(levels: int) -> tuple[Any, ...]:
    found: tuple[Any, ...] = ()
    for _ in range(levels):
        found = (found, found)
    return found


def tensor_of(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> Calls:
    return Calls(torch._utils._rebuild_tensor_v2, torch.zeros(4).storage(), offset, size, stride, False, {})


REFUSED: dict[str, tuple[Any, str]] = {
    "bytes without end": (Calls(bytearray, 10**12), "names builtins.bytearray"),
    "a tensor without values": (Calls(torch.Tensor, 10**12), r"names torch\._tensor\.Tensor|names torch\.Tensor"),
    "storage without values": (Calls(torch.UntypedStorage, 10**12), "names torch.storage.UntypedStorage"),
    "sparse": (
        torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.long), [1.0], (10**12,)),
        "_rebuild_sparse_tensor",
    ),
    "each value many times": (tensor_of((10**6, 10**6), (0, 0)), "a tensor claims 1,000,000,000,000 values"),
    "more values than it has": (tensor_of((5,), (1,)), "a tensor claims 5 values"),
    "values behind the last": (tensor_of((2,), (1,), offset=3), "a tensor claims 2 values"),
    "values before the first": (tensor_of((2,), (1,), offset=-1), "a tensor of an unknown form"),
    "replaced afterwards": (Keeps(), "sets the state of an object"),
    "a key that takes for ever": ({nested(12): 1}, "a tuple of more than 1000 values"),
    "a tuple as key": ({(1, 2): 1}, "a tuple as a key"),
    "numbers of one hash": (
        {k * (2**61 - 1) << 10: 0 for k in range(1, 2000)},
        "more than 1,000 integers beyond 64 bits",
    ),
    "text that takes for ever": (Calls(__import__("_codecs").encode, "x" * 1000, "idna"), "an unknown encoding"),
}


@pytest.mark.parametrize("is_new", [True, False], ids=["archive", "old format"])
@pytest.mark.parametrize(("content", "expected"), REFUSED.values(), ids=REFUSED)
def test_a_pickle_that_claims_more_than_it_contains_is_not_loaded(
    tmp_path: Path, content: Any, expected: str, is_new: bool
) -> None:
    path = tmp_path / "file.pth"
    torch.save({"model_state_dict": content}, path, _use_new_zipfile_serialization=is_new)
    with pytest.raises(AssetError, match=rf"file\.pth: not loadable as plain weights \(.*({expected})"):
        read_plain_weights(path, "weights")


@pytest.mark.parametrize("is_new", [True, False], ids=["archive", "old format"])
def test_objects_that_training_saves_are_loaded_unchanged(tmp_path: Path, is_new: bool) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    content = {
        "owner": "x", "step": 2**40, "loss": 0.5, "none": None, "bytes": b"\x00\xff", "huge": 2**200,
        "list": [1, (2, "x")], "set": {1, 2}, "dtype": torch.float16, "parameter": model[0].weight,
        "model": model.state_dict(), "optimizer": optimizer.state_dict(), "view": torch.arange(6.0)[2:4],
        "transposed": torch.arange(6.0).reshape(2, 3).T, "scalar": torch.tensor(3), "empty": torch.zeros(0, 5),
        "half": torch.ones(3, dtype=torch.bfloat16),
    }  # fmt: skip
    torch.save(content, tmp_path / "file.pt", _use_new_zipfile_serialization=is_new)
    found = load_pickled(tmp_path / "file.pt")
    assert found.keys() == content.keys()
    expected = torch.load(tmp_path / "file.pt", weights_only=True)
    assert repr(found) == repr(expected)


def repack(path: Path, change: Callable[[bytes], bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """Rewrite an archive with another pickle in it."""
    with zipfile.ZipFile(path) as archive:
        records = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, change(content) if name.endswith("data.pkl") else content)


def test_a_record_that_is_shorter_than_its_tensor_claims_is_not_read_beyond_its_end(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    torch.save({"x": torch.zeros(4)}, path)
    repack(path, lambda content: content.replace(b"K\x04", b"J\x00\x00\x00\x01"))  # 4 -> 16,777,216, everywhere
    with pytest.raises(AssetError, match=r"a tensor claims 67,108,864 bytes, more than its record has"):
        read_plain_weights(path, "weights")


def test_a_file_in_the_old_format_with_a_false_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    torch.save({"x": torch.zeros(4)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"K\x04", b"J\x00\x00\x00\x70"))
    with pytest.raises(AssetError, match=r"its tensors claim 7,516,192,768 bytes, more than the file has"):
        read_plain_weights(path, "weights")


# Images


def jpeg(size: tuple[int, int] = (16, 16), **options: Any) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, format="JPEG", **options)
    return stream.getvalue()


def encode_as(name: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, format=name)
    return stream.getvalue()


def with_many_scans(scans: int) -> bytes:
    """A progressive JPEG that repeats one scan many times."""
    content = jpeg((64, 64), progressive=True)
    start = content.rindex(b"\xff\xda")
    return content[:start] + content[start:-2] * scans + content[-2:]


def with_long_text() -> bytes:
    stream, text = io.BytesIO(), PngImagePlugin.PngInfo()
    for number in range(80):
        text.add_text(f"text{number}", "x" * 1_000_000, zip=True)
    Image.new("RGB", (16, 16)).save(stream, format="PNG", pnginfo=text)
    return stream.getvalue()


def huge_png(width: int, height: int) -> bytes:
    """A PNG of zeros, whose file has a thousandth of its size in memory."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + 3 * width)) for _ in range(height)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def with_size(content: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header claims another size."""
    place = content.index(b"\xff\xc0") + 5
    return content[:place] + struct.pack(">HH", height, width) + content[place + 4 :]


OTHER_FORMATS = dict.fromkeys(("ICO", "PPM", "PDF"), "not an image")
OTHER_FORMATS |= {"GIF": "a GIF file", "TIFF": "a TIFF file", "WEBP": "a WebP file", "BMP": "a BMP file"}
UNUSABLE = {
    **{name: (lambda name=name: encode_as(name), message) for name, message in OTHER_FORMATS.items()},
    "a JPEG that claims to be large": (lambda: with_size(jpeg(), 65_000, 65_000), "expected at most 64 million"),
    "a PNG of 100 megapixels": (lambda: huge_png(10_000, 10_000), "10000 x 10000 pixels, expected at most 64 million"),
    "a JPEG of many scans": (lambda: with_many_scans(300), "scans, expected at most 200"),
    "text that is large when it is unpacked": (with_long_text, "damaged"),
    "EPS": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
    "nothing": (lambda: b"", "empty, expected a JPEG or PNG file"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "expected"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_image_is_not_decoded(make: Callable[[], bytes], expected: str) -> None:
    content = make()
    with pytest.raises(AssetError, match=rf"^x\.jpg: .*{expected}"):
        decode_image(content, "x.jpg")
    assert expected in (image_fault(content) or "none")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "YCbCr"])
def test_an_image_of_any_mode_is_converted_to_three_channels(mode: str) -> None:
    stream = io.BytesIO()
    deep = Image.fromarray(np.zeros((8, 8), np.uint16))
    image = deep if mode == "I;16" else Image.new("RGB", (8, 8)).convert(mode)
    image.save(stream, format="JPEG" if mode == "YCbCr" else "PNG")
    assert decode_image(stream.getvalue(), "x").mode == "RGB"


def test_a_progressive_image_is_read() -> None:
    assert decode_image(jpeg((64, 64), progressive=True), "x").size == (64, 64)


def test_a_file_that_is_too_large_for_an_image_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.jpg").open("wb") as stream:
        stream.write(jpeg())
        stream.truncate(300 * 2**20)
    with pytest.raises(AssetError, match="expected at most 268,435,456"):
        read_image(tmp_path / "x.jpg")


def test_a_long_caption_is_read_in_a_short_time() -> None:
    named = caption_parser(["Amber"], ["Cats"], "Seed_Images")
    assert named("A Cats image in Amber style.") == ("Amber", "Cats")
    with time_limit(10):
        assert named("a" + " " * 5000 + "image in" + " " * 5000) is None
        assert named("a " + "x image in " * 50_000) is None


# JSON


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, '"\\ud800', "\xff", "", "nul"])
def test_invalid_json_is_reported_in_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ArtefactError, match=r"x\.json: not readable as JSON"):
        read_json(tmp_path / "x.json")


# Memory


BOMBS: dict[str, tuple[str, str]] = {
    "image.png": ("read_image", "expected at most 64 million"),
    "text.png": ("read_image", "damaged"),
    "sparse.json": ("read_json", "expected at most 33,554,432"),
    "packed.pth": ("weights", "its archive grows to"),
    "times.pth": ("weights", "a tensor claims"),
    "long.pth": ("weights", "more than its record has"),
    "rows.parquet": ("read_index", "rows, expected at most 2,000,000"),
    "values.parquet": ("read_index", "more than 268,435,456 bytes of memory"),
    "image.parquet": ("captions", "expected struct"),
}
"""Files of at most a few million bytes that expand to a hundred times as much; their readers and the errors."""

MEASURED = """
import json, resource, sys
from pathlib import Path
from corelib.files import parquet_files as parquet
from corelib.errors import UserError
from corelib.files.json_files import read_json
from corelib.files.torch_files import read_plain_weights
from corelib.worlds.assets.image_index import read_index
from corelib.files.image_files import read_image
from corelib.worlds.assets.index_building import _read_captions as captions

parquet.MAX_MEMORY_BYTES = 256 * 2**20  # so that the test itself needs little memory
weights = lambda path: read_plain_weights(path, "weights")
for name, reader in json.loads(sys.argv[2]).items():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        globals()[reader](Path(sys.argv[1]) / name)
        message = "it was read"
    except UserError as error:
        message = str(error)
    print(json.dumps([name, message, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]))
"""


def write_bombs(folder: Path) -> None:
    (folder / "image.png").write_bytes(huge_png(12_000, 12_000))
    (folder / "text.png").write_bytes(with_long_text())
    with (folder / "sparse.json").open("wb") as stream:
        stream.truncate(2**30)
    torch.save({"x": torch.zeros(4)}, folder / "packed.pth")
    repack(folder / "packed.pth", lambda content: content[:-1] + b"0" * 2**29 + b".", zipfile.ZIP_DEFLATED)
    torch.save(tensor_of((20_000, 20_000), (0, 0)), folder / "times.pth")
    torch.save({"x": torch.zeros(4)}, folder / "long.pth")
    repack(folder / "long.pth", lambda content: content.replace(b"K\x04", b"J\x00\x00\x00\x10"))
    names = ["style", "object", "index", "file", "row", "size", "sha256"]
    types = [pa.string(), pa.string(), pa.int32(), pa.string(), pa.int64(), pa.int64(), pa.string()]

    def table(rows: int, text: str) -> pa.Table:
        values = {pa.string(): text, pa.int32(): 1, pa.int64(): 1}
        columns = [
            pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([values[kind]], kind))
            for kind in types
        ]
        return pa.table(columns, names=names)

    pq.write_table(table(20_000_000, "x"), folder / "rows.parquet", store_schema=False)
    pq.write_table(table(1_000_000, "x" * 1000), folder / "values.parquet", store_schema=False)
    pq.write_table(pa.table({"image": ["x"], "text": ["x"]}), folder / "image.parquet")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, int]]:
    """The error for each bomb, and the growth of peak memory in KiB, measured in a separate process."""
    folder = tmp_path_factory.mktemp("bombs")
    write_bombs(folder)
    readers = json.dumps({name: reader for name, (reader, _) in BOMBS.items()})
    command = [sys.executable, "-c", MEASURED, str(folder), readers]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: (message, growth) for name, message, growth in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize(("name", "expected"), [(name, message) for name, (_, message) in BOMBS.items()], ids=BOMBS)
def test_no_file_exceeds_the_limit_on_memory(measured: dict[str, tuple[str, int]], name: str, expected: str) -> None:
    message, growth = measured[name]
    assert expected in message
    assert growth < 400 * 1024, f"{name} took {growth // 1024} MiB"
