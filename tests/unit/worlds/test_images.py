"""UnlearnCanvas in its two forms: the same images under the same names, and all faults reported together."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.checkout import REPOSITORY, Checkout
from support.full_format import (
    UNUSED_STYLES,
    benchmark_images,
    picture,
    with_comment,
    write_image_folder,
    write_parquet,
)
from support.hand_made import write_manifest

from corelib.errors import ArtefactError, AssetError
from corelib.files.hashing import sha256_of_path
from corelib.runs.layout import MANIFEST
from corelib.runs.manifest import read_manifest
from corelib.study.loading import load_study
from corelib.worlds import benchmark_images as reading
from corelib.worlds.assets.image_index import (
    SCHEMA,
    SEPARATE_FILE,
    ImageIndex,
    ImageLocation,
    RequiredImages,
    read_index,
    write_index,
)
from corelib.worlds.assets.index_building import caption_parser, image_fault, index_images

STUDY = load_study("paper", REPOSITORY / "config")
STYLES, OBJECTS = STUDY.world.styles, STUDY.world.objects
SMALL = RequiredImages(["Monet", "Seed_Images"], ["Cats", "Dogs"], 3)


def build_index(root: Path, wanted: RequiredImages = SMALL, threads: int = 2) -> ImageIndex:
    return index_images(root, wanted, "Seed_Images", threads, root.parent / "faults.txt")


def small_images() -> list[tuple[str, str, int, bytes]]:
    return list(benchmark_images(SMALL.styles, SMALL.objects, SMALL.images_per_cell))


def open_images(folder: Path, root: Path, index: ImageIndex) -> reading.BenchmarkImages:
    """The images as a stage reads them."""
    folder.mkdir()
    (folder / "images").symlink_to(root)
    write_index(folder / "images.parquet", index)
    facts = {"images": "images", "image_index": "images.parquet"}
    write_manifest(folder / MANIFEST, folder, "assets", "x", ["images.parquet"], facts)
    return reading.benchmark_images(read_manifest(folder / MANIFEST))


# The whole benchmark, 24,400 rows


def test_the_whole_benchmark_is_recovered_from_captions_and_order(tmp_path: Path) -> None:
    everything = sorted([*STYLES, *UNUSED_STYLES])
    rows = write_parquet(tmp_path / "hub/data", benchmark_images(everything, OBJECTS, 20, side=8))
    assert rows == 24_400
    wanted = RequiredImages(STYLES, OBJECTS, 20)
    index = build_index(tmp_path / "hub", wanted)
    assert list(index.places) == list(wanted.images())
    written = {
        (style, object_, n): content for style, object_, n, content in benchmark_images(everything, OBJECTS, 20, side=8)
    }
    for key in wanted.images():
        assert index.places[key].sha256 == hashlib.sha256(written[key]).hexdigest()
    images = open_images(tmp_path / "world", tmp_path / "hub", index)
    for key in (("Abstractionism", "Architectures", 1), ("Seed_Images", "Sea", 20), ("Winter", "Waterfalls", 20)):
        assert images.read(*key).size == (8, 8)
        (path,) = images.files([key], tmp_path)
        assert path.read_bytes() == written[key]


# Two forms


@pytest.mark.parametrize("rows_per_shard", [1, 5, 100])
def test_folder_and_parquet_are_the_same_images(tmp_path: Path, rows_per_shard: int) -> None:
    write_image_folder(tmp_path / "folder", iter(small_images()))
    write_parquet(tmp_path / "parquet", iter(small_images()), rows_per_shard)
    indices = {name: build_index(tmp_path / name) for name in ("folder", "parquet")}
    assert indices["folder"].digest == indices["parquet"].digest
    forms = {name: open_images(tmp_path / f"{name}-world", tmp_path / name, index) for name, index in indices.items()}
    for key in SMALL.images():
        first, second = (form.read(*key).tobytes() for form in forms.values())
        assert first == second
        assert forms["folder"].sha256(*key) == forms["parquet"].sha256(*key)
    files = {name: form.files(list(SMALL.images()), tmp_path / "out") for name, form in forms.items()}
    assert [path.read_bytes() for path in files["folder"]] == [path.read_bytes() for path in files["parquet"]]
    assert all(path.is_relative_to(tmp_path / "folder") for path in files["folder"])


def test_images_that_moved_into_parquet_are_found_at_their_new_location(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "images", iter(small_images()))
    write_index(tmp_path / "index.parquet", build_index(tmp_path / "images"))
    run = tmp_path / "run"
    run.mkdir()
    (run / "images").symlink_to(tmp_path / "images")
    (run / "image_index").symlink_to(tmp_path / "index.parquet")
    shutil.copyfile(tmp_path / "index.parquet", run / "images.parquet")
    facts = {"images": "images", "image_index": "images.parquet", "places": "image_index"}
    write_manifest(run / MANIFEST, run, "assets", "x", ["images.parquet"], facts)
    before = reading.benchmark_images(read_manifest(run / MANIFEST)).read("Monet", "Cats", 1)

    shutil.rmtree(tmp_path / "images")
    write_parquet(tmp_path / "images", iter(small_images()), 5)
    write_index(tmp_path / "index.parquet", build_index(tmp_path / "images"))
    after = reading.benchmark_images(read_manifest(run / MANIFEST)).read("Monet", "Cats", 1)
    assert before.tobytes() == after.tobytes()

    places = dict(build_index(tmp_path / "images").places)
    del places["Seed_Images", "Dogs", 3]  # another set of images: the run uses its own copy of the index
    write_index(tmp_path / "index.parquet", ImageIndex(places))
    with pytest.raises(AssetError, match="Monet/Cats"):
        reading.benchmark_images(read_manifest(run / MANIFEST)).read("Monet", "Cats", 1)


def test_the_order_of_other_cells_and_the_number_of_threads_change_nothing(tmp_path: Path) -> None:
    images = small_images()
    by_index = sorted(images, key=lambda image: (image[2], image[1], image[0]))  # cells interleaved
    write_parquet(tmp_path / "one", iter(images))
    write_parquet(tmp_path / "other", iter(by_index), rows_per_shard=4)
    first, second = build_index(tmp_path / "one", threads=1), build_index(tmp_path / "other", threads=4)
    assert first.digest == second.digest
    assert list(first.places) == list(second.places) == list(SMALL.images())


def test_an_index_is_the_same_file_wherever_and_whenever_it_is_written(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "folder", iter(small_images()))
    for name in ("a", "b"):
        write_index(tmp_path / name / "images.parquet", build_index(tmp_path / "folder"))
    assert sha256_of_path(tmp_path / "a/images.parquet") == sha256_of_path(tmp_path / "b/images.parquet")
    assert read_index(tmp_path / "a/images.parquet") == build_index(tmp_path / "folder")


def test_images_of_the_real_size_are_read(tmp_path: Path) -> None:
    content = picture(np.random.default_rng(1), 2048, 900)
    assert 2_000_000 < len(content) < 8_000_000
    assert image_fault(content) is None
    assert "truncated" in str(image_fault(content[: len(content) // 2]))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (7, 300), (300, 7)])
def test_an_image_of_a_few_pixels_is_read(width: int, height: int) -> None:
    assert image_fault(picture(np.random.default_rng(1), width, height)) is None


# Captions


@given(st.sampled_from(STYLES), st.sampled_from(OBJECTS), st.booleans(), st.booleans())
def test_every_caption_of_the_benchmark_is_understood(style: str, object_: str, lower: bool, period: bool) -> None:
    caption = f"A {object_} image in {style.replace('_', ' ')} style" + "." * period
    named = caption_parser(STYLES, OBJECTS, "Seed_Images")
    assert named(caption.lower() if lower else caption) == (style, object_)


@pytest.mark.parametrize("caption", ["A Dogs image in Photo style.", "A Dogs image in Seed Images style."])
def test_the_photo_style_has_two_names(caption: str) -> None:
    assert caption_parser(STYLES, OBJECTS, "Seed_Images")(caption) == ("Seed_Images", "Dogs")


@pytest.mark.parametrize("caption", ["", "Dogs", "A Dogs image in Nobody style.", "A Cow image in Monet style."])
def test_other_captions_match_nothing(caption: str) -> None:
    assert caption_parser(STYLES, OBJECTS, "Seed_Images")(caption) is None


# Faults


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("side", [8, 64, 500])
def test_a_truncated_image_is_detected_wherever_it_ends(share: float, side: int) -> None:
    content = with_comment(picture(np.random.default_rng(2), side, side // 2), "x")
    assert image_fault(content) is None
    assert image_fault(content[: int(share * len(content))])


def test_all_faults_of_a_folder_are_listed_at_once(tmp_path: Path) -> None:
    root = tmp_path / "folder"
    write_image_folder(root, iter(small_images()))
    (root / "Monet/Cats/1.jpg").unlink()
    (root / "Monet/Cats/2.jpg").write_bytes(b"no picture")
    whole = (root / "Monet/Cats/3.jpg").read_bytes()
    (root / "Monet/Cats/3.jpg").write_bytes(whole[:-40])
    shutil.copy(root / "Monet/Dogs/1.jpg", root / "Monet/Dogs/2.jpg")
    shutil.rmtree(root / "Seed_Images/Dogs")
    with pytest.raises(
        AssetError, match=r"folder: 7 faults in the images, all listed in .*faults\.txt; the first: "
    ) as raised:
        build_index(root)
    assert "\n" not in str(raised.value)
    listed = (tmp_path / "faults.txt").read_text().splitlines()
    expected = [
        ("Monet/Cats/1.jpg", "missing"),
        ("Monet/Cats/2.jpg", "not an image"),
        ("Monet/Cats/3.jpg", "truncated"),
        ("Monet/Dogs/2.jpg", "same bytes as Monet/Dogs/1.jpg"),
        *((f"Seed_Images/Dogs/{index}.jpg", "missing") for index in (1, 2, 3)),
    ]
    for name, fault in expected:
        assert [line for line in listed if name in line and fault in line], (name, fault, listed)
    assert len(listed) == len(expected)


def test_all_faults_of_parquet_files_are_listed_at_once(tmp_path: Path) -> None:
    images = small_images()
    images[1] = (*images[1][:3], images[1][3][:-40])
    images[2] = (*images[2][:3], images[4][3])
    del images[-1]
    images += [("Monet", "Cats", 4, picture(np.random.default_rng(9), 8)), ("Nobody", "Cats", 1, b"")]
    write_parquet(tmp_path / "hub", iter(images), rows_per_shard=5)
    with pytest.raises(AssetError, match="faults in the images"):
        build_index(tmp_path / "hub")
    listed = (tmp_path / "faults.txt").read_text()
    for fault in (
        "names no style",
        "Monet/Cats has 4 images",
        "truncated",
        "same bytes",
        "Seed_Images/Dogs/3.jpg: missing",
    ):
        assert fault in listed, (fault, listed)


@pytest.mark.parametrize("damage", ["truncated", "other columns", "no parquet"])
def test_a_damaged_shard_is_reported_in_one_sentence(tmp_path: Path, damage: str) -> None:
    write_parquet(tmp_path / "hub", iter(small_images()))
    (shard,) = (tmp_path / "hub").glob("*.parquet")
    if damage == "truncated":
        shard.write_bytes(shard.read_bytes()[:-500])
    elif damage == "other columns":
        pq.write_table(pa.table({"label": [1, 2]}), shard)
    else:
        shard.write_bytes(b"nothing")
    with pytest.raises(AssetError, match=r"parquet: not readable .*expected parquet with the columns"):
        build_index(tmp_path / "hub")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("cut off", "2.jpg: the image is damaged"),
        ("other", "2.jpg: not an image, expected a JPEG or PNG file; delete"),
        ("none", "2.jpg: the image is missing, its folder has 9 files; delete"),
    ],
)
def test_an_image_that_changed_since_it_was_rendered_stops_the_job_in_one_sentence(
    content: str, sentence: str, built: Checkout, tmp_path: Path
) -> None:
    world = next((built.folder / "runs/images").iterdir())
    shutil.copytree(world, tmp_path / "world")
    image = tmp_path / "world/images/Cobalt_Stripes/Circles/2.jpg"
    if content == "none":
        image.unlink()
    else:
        image.write_bytes(image.read_bytes()[:300] if content == "cut off" else b"not an image")
    rendered = reading.benchmark_images(read_manifest(tmp_path / "world" / MANIFEST))
    with pytest.raises(AssetError, match=re.escape(f"Cobalt_Stripes/Circles/{sentence}")):
        rendered.read("Cobalt_Stripes", "Circles", 2)


@pytest.mark.parametrize("form", ["folder", "parquet"])
def test_images_that_differ_from_the_index_are_not_used(tmp_path: Path, form: str) -> None:
    root = tmp_path / form
    write = write_image_folder if form == "folder" else write_parquet
    write(root, iter(small_images()))
    images = open_images(tmp_path / "world", root, build_index(root))
    other = [(style, object_, n, with_comment(content, "other")) for style, object_, n, content in small_images()]
    shutil.rmtree(root)
    write(root, iter(other))
    with pytest.raises(AssetError, match=r"has changed since it was indexed"):
        images.read("Monet", "Dogs", 2)
    with pytest.raises(AssetError, match=r"has changed since it was indexed"):
        images.files([("Monet", "Dogs", 2)], tmp_path)
    with pytest.raises(AssetError, match="the index has no image Monet/Dogs/9"):
        images.read("Monet", "Dogs", 9)
    shutil.rmtree(root)
    images = reading.benchmark_images(read_manifest(tmp_path / "world" / MANIFEST))
    with pytest.raises(AssetError, match="not readable"):
        images.read("Monet", "Dogs", 2)


@pytest.mark.parametrize("file", ["/etc/passwd", "../secret.jpg", "a/../../b.jpg"])
def test_an_index_does_not_lead_out_of_the_images_folder(tmp_path: Path, file: str) -> None:
    write_index(
        tmp_path / "index.parquet", ImageIndex({("Monet", "Cats", 1): ImageLocation(file, SEPARATE_FILE, 1, "0" * 64)})
    )
    with pytest.raises(ArtefactError, match="leads out of its folder"):
        read_index(tmp_path / "index.parquet")


def test_a_damaged_index_is_reported_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "index.parquet").write_bytes(b"nothing")
    with pytest.raises(ArtefactError, match=r"index\.parquet: not readable as an index of images"):
        read_index(tmp_path / "index.parquet")
    pq.write_table(pa.table({"style": ["a"]}), tmp_path / "index.parquet")
    with pytest.raises(ArtefactError, match=r"index\.parquet: not readable as an index of images"):
        read_index(tmp_path / "index.parquet")
    assert len(SCHEMA) == 7
