"""Assets damaged by a download, another system or a mix of models: each is rejected before it is locked or used."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from support.full_format import write_image_folder, write_parquet
from support.small_world import make_pipeline
from test_adoption import CLASSES, FILES, WEIGHTS, configure, link_all_assets, make_assets, weights
from test_benchmark_folders import build_index, faults_of
from test_images import small_images

from corelib.errors import AssetError
from corelib.models.config_checks import check_class_order
from corelib.models.model_inspection import inspect_part
from corelib.models.pipeline_parts import load_scheduler, load_tokenizer
from corelib.worlds.assets.compvis import check_checkpoint_schedule
from corelib.worlds.miniature.pipeline import build_tokenizer

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 3438167540\n"
PAGE = b"<!DOCTYPE html>\n<html><body>403 Forbidden</body></html>"

UNET, TEXT, TOKENIZER = "pipeline/unet", "pipeline/text_encoder", "pipeline/tokenizer"
SCHEDULE = "pipeline/scheduler/scheduler_config.json"


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline and a classifier of random weights."""
    folder = tmp_path_factory.mktemp("assets")
    shutil.copytree(make_pipeline(folder / "made").folder / "pipeline", folder / "pipeline")
    shutil.rmtree(folder / "made")
    torch.save({"model_state_dict": weights()}, folder / "style50.pth")
    return folder


def break_link_beside_old_weights(folder: Path) -> None:
    """A link in the Hub's cache whose file was removed; libraries would silently load the older weights beside it."""
    path = folder / UNET / WEIGHTS
    tensors = load_file(path)
    torch.save({name: tensor + 1 for name, tensor in tensors.items()}, path.with_suffix(".bin"))
    replace_by_broken_link(path)


def replace_by_broken_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("../../blobs/4d7a")


def replace_by_folder(path: Path) -> None:
    """Replace a file by a folder."""
    path.unlink()
    path.mkdir()


def add_byte_order_mark(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def remove_keys(path: Path, *keys: str) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in content.items() if key not in keys}))


def cut_merges(folder: Path) -> None:
    """Truncate the merges of a tokenizer in two files, as an interrupted download does."""
    (folder / TOKENIZER / "tokenizer.json").unlink()
    path = folder / TOKENIZER / "merges.txt"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2]))


def use_files_of_another_tokenizer(folder: Path, *names: str) -> None:
    """Use some files of a tokenizer with fewer words; libraries read `tokenizer.json` before the other files."""
    other = build_tokenizer(["A", "image"])
    other.save_pretrained(folder / "other")
    other.backend_tokenizer.model.save(str(folder / "other"))
    for name in names:
        shutil.copy(folder / "other" / name, folder / TOKENIZER / name)
    shutil.rmtree(folder / "other")


def replace_pipeline_by_file(folder: Path) -> None:
    shutil.rmtree(folder / "pipeline")
    (folder / "pipeline").write_bytes(b"")


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "pointer in place of a U-Net": (
        lambda f: (f / UNET / WEIGHTS).write_bytes(POINTER),
        rf"unet/{WEIGHTS}: a Git LFS pointer, not the file itself; run `git lfs pull`",
    ),
    "pointer in place of a classifier": (
        lambda f: (f / "style50.pth").write_bytes(POINTER),
        r"style50\.pth: a Git LFS pointer, not the file itself",
    ),
    "web page in place of a classifier": (
        lambda f: (f / "style50.pth").write_bytes(PAGE),
        r"style50\.pth: a web page, not the file itself; fetch it again",
    ),
    "classes in another order": (
        lambda f: torch.save(
            {"model_state_dict": weights(), "class_to_idx": {"cream": 0, "Amber": 2, "Blue": 1}}, f / "style50.pth"
        ),
        r"style50\.pth: in its `class_to_idx` the class of output 0 is cream, expected Amber; train the",
    ),
    "broken link": (
        lambda f: replace_by_broken_link(f / UNET / WEIGHTS),
        rf"unet/{WEIGHTS}: a link to \.\./\.\./blobs/4d7a, which is missing; fetch the file again",
    ),
    "broken link beside older weights": (
        break_link_beside_old_weights,
        rf"unet/{WEIGHTS}: a link to .* which is missing",
    ),
    "folder in place of weights": (
        lambda f: replace_by_folder(f / UNET / WEIGHTS),
        rf"unet/{WEIGHTS}: a folder, expected a file",
    ),
    "byte order mark": (
        lambda f: add_byte_order_mark(f / UNET / "config.json"),
        r"unet/config\.json: it begins with a byte order mark; save it as UTF-8 without one",
    ),
    "U-Net that takes its guidance as an input": (
        lambda f: configure(f / UNET / "config.json", time_cond_proj_dim=256),
        r"unet/config\.json: `time_cond_proj_dim` is 256, expected none, as in Stable Diffusion v1",
    ),
    "U-Net of classes": (
        lambda f: configure(f / UNET / "config.json", class_embed_type="timestep"),
        r"unet/config\.json: `class_embed_type` is timestep, expected none",
    ),
    "U-Net that takes sizes": (
        lambda f: configure(
            f / UNET / "config.json",
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=64,
        ),
        r"unet/config\.json: `addition_embed_type` is text_time, expected none",
    ),
    "latents that are shifted": (
        lambda f: configure(f / "pipeline/vae/config.json", shift_factor=0.1),
        r"vae/config\.json: `shift_factor` is 0\.1, expected none",
    ),
    "model that predicts velocity": (
        lambda f: configure(f / SCHEDULE, prediction_type="v_prediction"),
        r"scheduler_config\.json: `prediction_type` is v_prediction, expected epsilon",
    ),
    "no signal at the last step": (
        lambda f: configure(f / SCHEDULE, rescale_betas_zero_snr=True),
        r"scheduler_config\.json: `rescale_betas_zero_snr` is true, expected false",
    ),
    "thresholding": (
        lambda f: configure(f / SCHEDULE, thresholding=True),
        r"scheduler_config\.json: `thresholding` is true, expected false",
    ),
    "schedule that is left to defaults": (
        lambda f: remove_keys(f / SCHEDULE, "beta_start", "beta_schedule"),
        r"scheduler_config\.json: it lacks `beta_start`, `beta_schedule`; add the values with which the model",
    ),
    "betas beyond 1": (
        lambda f: configure(f / SCHEDULE, beta_end=12.0),
        r"scheduler_config\.json: the noise does not increase at every step, expected betas between 0 and 1",
    ),
    "merges that are cut off": (cut_merges, r"tokenizer: \d+ words of its vocabulary, such as \S+, have no merge"),
    "tokenizer without merges": (
        lambda f: [(f / TOKENIZER / name).unlink() for name in ("tokenizer.json", "merges.txt")],
        r"tokenizer/merges\.txt: the file is missing, expected one as CLIP's tokenizer has",
    ),
    "vocabulary of another tokenizer": (
        lambda f: use_files_of_another_tokenizer(f, "vocab.json", "merges.txt"),
        r"tokenizer/vocab\.json: its words differ from those of tokenizer\.json beside it, expected files of one",
    ),
    "tokenizer of another model": (
        lambda f: use_files_of_another_tokenizer(f, "vocab.json", "merges.txt", "tokenizer.json"),
        r"tokenizer: it has \d+ tokens, but \S+text_encoder has \d+, expected equal numbers",
    ),
}
"""Change of an asset, and the expected message."""


@pytest.mark.parametrize("how", ODD)
def test_an_odd_asset_is_neither_locked_nor_adopted(how: str, assets: Path, tmp_path: Path) -> None:
    change, message = ODD[how]
    folder = Path(shutil.copytree(assets, tmp_path / "assets"))
    change(folder)
    with pytest.raises(AssetError, match=message):
        make_assets(folder, tmp_path)
    linked_assets = link_all_assets(folder, tmp_path / "taken")
    (fault,) = linked_assets.faults(values=False)
    assert re.search(message, fault) and "\n" not in fault
    with pytest.raises(AssetError, match=message):
        linked_assets.manifest()


def test_merges_may_have_the_line_endings_of_other_systems(assets: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(assets / TOKENIZER, tmp_path / "tokenizer"))
    prompt = "A Cats image in Amber style."
    expected = load_tokenizer(folder)(prompt).input_ids
    (folder / "tokenizer.json").unlink()
    (folder / "merges.txt").write_bytes((folder / "merges.txt").read_bytes().replace(b"\n", b"\r\n"))
    inspect_part("tokenizer", folder, values=True)
    assert load_tokenizer(folder)(prompt).input_ids == expected


@pytest.mark.parametrize("name", [b"r\xe9sum\xe9.txt", "a\N{NO-BREAK SPACE}b.txt".encode(), b"a\nb.txt"])
def test_a_file_with_an_unprintable_name_is_not_locked(name: bytes, assets: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(assets, tmp_path / "assets"))
    with open(os.fsencode(folder / UNET) + b"/" + name, "wb"):
        pass
    with pytest.raises(AssetError, match=r"txt': its name has characters that cannot be printed; rename it") as refused:
        make_assets(folder, tmp_path)
    str(refused.value).encode()


def test_a_folder_in_place_of_an_inception_network_is_reported_in_one_sentence(assets: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(assets, tmp_path / "assets"))
    (folder / FILES["inception"]).mkdir()
    with pytest.raises(AssetError, match=r"inception\.pt: a folder, expected a file\.$"):
        make_assets(folder, tmp_path)


def test_a_checkpoint_in_place_of_a_diffusers_folder_is_not_overwritten(assets: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(assets, tmp_path / "assets"))
    replace_pipeline_by_file(folder)
    with pytest.raises(AssetError, match=r"pipeline, a file, expected a diffusers folder with unet/, vae/"):
        make_assets(folder, tmp_path, [name for name in FILES if name.startswith("pipeline/")])


@pytest.mark.parametrize(
    "names", [["amber", "Blue", "Cream"], {"Amber": 0, "Blue": 1, "Cream": 2}, ["1", "2", "3"], None]
)
def test_classes_in_the_same_order_or_with_other_names_are_accepted(names: object) -> None:
    check_class_order(Path("style50.pth"), {"classes": names, "class_names": 3}, CLASSES)


def test_a_checkpoint_with_another_noise_schedule_than_its_folder_is_rejected(assets: Path) -> None:
    folder = assets / "pipeline/scheduler"
    scheduler = load_scheduler(folder)

    def check(**tensors: torch.Tensor) -> None:
        check_checkpoint_schedule(Path("a.ckpt"), tensors, folder, scheduler)

    alphas = scheduler.alphas_cumprod
    check()
    check(alphas_cumprod=alphas.half())
    for other in (alphas**2, alphas[:500]):
        with pytest.raises(
            AssetError, match=r"a\.ckpt: its noise schedule `alphas_cumprod` differs from that of \S+scheduler"
        ):
            check(alphas_cumprod=other)
    with pytest.raises(AssetError, match=r"a\.ckpt: its tensor `v_pred` marks a model that"):
        check(alphas_cumprod=alphas, v_pred=torch.tensor([]))


# Missing permissions


def forbid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate missing permission to read a file or list a folder; real permissions would not restrict root."""

    def refusing(function: Callable[..., Any], *, below: bool) -> Callable[..., Any]:
        def wrapper(name: Any, *arguments: Any, **options: Any) -> Any:
            place = Path(os.fsdecode(name)).absolute() if isinstance(name, str | bytes | os.PathLike) else Path()
            if path in place.parents or (place == path and not below):
                raise PermissionError(13, "Permission denied", str(name))
            return function(name, *arguments, **options)

        return wrapper

    is_folder = path.is_dir()
    for module, function, below in ((io, "open", False), (os, "listdir", False), (os, "stat", True)):
        monkeypatch.setattr(module, function, refusing(getattr(module, function), below=below))
    assert path.is_dir() == is_folder


@pytest.mark.parametrize("name", ["style50.pth", f"{UNET}/{WEIGHTS}", f"{TOKENIZER}/merges.txt", UNET, "pipeline"])
def test_missing_permission_is_reported_in_one_sentence(
    name: str, assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(assets, tmp_path / "assets"))
    forbid(folder / name, monkeypatch)
    message = rf"{re.escape(name)}(/\w+)?: not readable \(Permission denied\); check its permissions\.$"
    with pytest.raises(AssetError, match=message):
        make_assets(folder, tmp_path, ["style_classifier", *(name for name in FILES if name.startswith("pipeline/"))])


# Images


@pytest.mark.parametrize(
    "name", [b"Mon\xe9t", "Seed\N{NO-BREAK SPACE}Images".encode()], ids=["not UTF-8", "no-break space"]
)
def test_an_unprintable_name_of_a_folder_of_images_is_reported(name: bytes, tmp_path: Path) -> None:
    root = tmp_path / "images/here"
    write_image_folder(root, iter(small_images()))
    os.rename(root / ("Monet" if b"M" in name else "Seed_Images"), os.fsencode(root) + b"/" + name)
    error = faults_of(root)
    error.encode()
    assert ("'Mon\\udce9t'" in error) if b"M" in name else ("Images': its name has characters that cannot be" in error)


def test_an_unprintable_name_of_a_top_folder_is_reported(tmp_path: Path) -> None:
    root = tmp_path / "images/here"
    write_image_folder(root / "inner", iter(small_images()))
    os.rename(root / "inner", os.fsencode(root) + b"/Unlearn\xe9")
    assert "Unlearn\\udce9': its name has characters that cannot be printed; rename it" in faults_of(root)


def test_the_kind_of_an_entry_named_like_an_image_is_reported(tmp_path: Path) -> None:
    root = tmp_path / "here"
    write_image_folder(root, iter(small_images()))
    replace_by_broken_link(root / "Monet/Cats/1.jpg")
    replace_by_folder(root / "Monet/Dogs/2.jpg")
    (root / "Monet/Dogs/3.jpg").write_bytes(POINTER)
    error = faults_of(root)
    assert "missing, its folder has 1.jpg (a link to ../../blobs/4d7a, which is missing), 2.jpg and 3.jpg" in error
    assert "missing, its folder has 1.jpg, 2.jpg (a folder) and 3.jpg" in error
    assert "Monet/Dogs/3.jpg: a Git LFS pointer, not the file itself" in error


def test_a_folder_of_images_without_read_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "here"
    write_image_folder(root, iter(small_images()))
    forbid(root / "Monet", monkeypatch)
    with pytest.raises(OSError, match="Permission denied") as refused:
        build_index(root)
    assert refused.value.filename.endswith("here/Monet"), "`make assets` turns it into a sentence"


def test_parquet_files_are_ordered_by_number_with_or_without_leading_zeros(tmp_path: Path) -> None:
    """The index of an image is its position among the rows of its style and object."""
    write_parquet(tmp_path / "padded/data", iter(small_images()), 1)
    shutil.copytree(tmp_path / "padded", tmp_path / "plain")
    for path in list((tmp_path / "plain/data").iterdir()):
        path.rename(path.with_name(re.sub(r"-0*(\d+)-of.*", r"-\1.parquet", path.name)))
    assert build_index(tmp_path / "plain").digest == build_index(tmp_path / "padded").digest


def test_a_row_with_a_path_in_place_of_an_image_is_reported_once(tmp_path: Path) -> None:
    write_parquet(tmp_path / "here/data", iter(small_images()))
    (shard,) = (tmp_path / "here/data").iterdir()
    table = pq.read_table(shard)
    rows = table["image"].to_pylist()
    rows[:2] = [{"bytes": None, "path": f"/data/{row}.jpg"} for row in range(2)]
    pq.write_table(pa.table({"text": table["text"], "image": pa.array(rows, table["image"].type)}), shard)
    error = faults_of(tmp_path / "here")
    assert ", row 0 (Monet/Cats/1.jpg): empty, expected a JPEG or PNG file" in error
    assert "here: 2 faults in the images" in error


def test_a_pointer_in_place_of_a_parquet_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/train-00000-of-00001.parquet").write_bytes(POINTER)
    with pytest.raises(AssetError, match=r"00001\.parquet: a Git LFS pointer, not the file itself"):
        build_index(tmp_path / "here")


def test_an_unprintable_name_of_a_parquet_file_is_reported(tmp_path: Path) -> None:
    write_parquet(tmp_path / "here/data", iter(small_images()))
    os.rename(tmp_path / "here/data", os.fsencode(tmp_path / "here") + b"/dat\xe9")
    with pytest.raises(AssetError, match="its name has characters that cannot be printed; rename it"):
        build_index(tmp_path / "here")
