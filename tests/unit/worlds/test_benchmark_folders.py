"""Layouts of the benchmark's images: unambiguous deviations are accepted; for all others, the content is reported."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.full_format import write_image_folder, write_parquet
from test_images import SMALL, open_images, small_images

from corelib.errors import AssetError
from corelib.worlds.assets.image_index import ImageIndex, write_index
from corelib.worlds.assets.index_building import index_images


def build_index(root: Path, notes: list[str] | None = None) -> ImageIndex:
    say = (lambda line: None) if notes is None else notes.append
    return index_images(root, SMALL, "Seed_Images", 2, root.parent / "faults.txt", say)


def faults_of(root: Path) -> str:
    """The sentence that rejects the images, followed by all faults on separate lines."""
    with pytest.raises(AssetError) as refused:
        build_index(root)
    assert "\n" not in str(refused.value)
    return f"{refused.value}\n{(root.parent / 'faults.txt').read_text()}"


def rename_images(root: Path, name: Callable[[str], str]) -> None:
    """Rename every image."""
    for path in sorted(root.glob("*/*/*.jpg"), reverse=name("1.jpg") != "0.jpg"):
        path.rename(path.with_name(name(path.name)))


def add_parent_folder(root: Path) -> None:
    root.rename(root.parent / "inner")
    (root / "UnlearnCanvas").mkdir(parents=True)
    for path in (root.parent / "inner").iterdir():
        path.rename(root / "UnlearnCanvas" / path.name)


def link_styles(root: Path) -> None:
    for style in list(root.iterdir()):
        style.rename(root.parent / style.name)
        style.symlink_to(root.parent / style.name)


def add_files_of_other_systems(root: Path) -> None:
    for folder in (root, *root.glob("*"), *root.glob("*/*")):
        for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "._1.jpg"):
            (folder / name).write_bytes(b"\0\5\x16\7")
    (root / "__MACOSX/Monet/Cats").mkdir(parents=True)
    (root / "._train.parquet").write_bytes(b"\0\5\x16\7")


LAYOUTS: dict[str, Callable[[Path], object]] = {
    "as documented": lambda root: None,
    "the photos' folder of the Drive": lambda root: (root / "Seed_Images").rename(root / "Seed_Image"),
    "photos": lambda root: (root / "Seed_Images").rename(root / "Photo"),
    "lower case": lambda root: [(root / style).rename(root / style.lower()) for style in SMALL.styles],
    "blanks": lambda root: (root / "Seed_Images").rename(root / "Seed Images"),
    "capital ending": lambda root: rename_images(root, lambda name: name.replace(".jpg", ".JPG")),
    "long ending": lambda root: rename_images(root, lambda name: name.replace(".jpg", ".jpeg")),
    "PNG by name": lambda root: rename_images(root, lambda name: name.replace(".jpg", ".png")),
    "leading zeros": lambda root: rename_images(root, lambda name: f"0{name}"),
    "four digits": lambda root: rename_images(root, lambda name: f"000{name}"),
    "counted from 0": lambda root: rename_images(root, lambda name: f"{int(name[0]) - 1}.jpg"),
    "counted from 00": lambda root: rename_images(root, lambda name: f"0{int(name[0]) - 1}.jpg"),
    "one folder more": add_parent_folder,
    "two folders more": lambda root: [add_parent_folder(root), add_parent_folder(root)],
    "linked styles": link_styles,
    "litter of other systems": add_files_of_other_systems,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_images_are_found_under_other_names(layout: str, tmp_path: Path) -> None:
    write_image_folder(tmp_path / "plain", iter(small_images()))
    root = tmp_path / "images/here"
    write_image_folder(root, iter(small_images()))
    if layout == "two folders more":
        add_parent_folder(root)
        root.rename(tmp_path / "images/once")
        (root / "data").mkdir(parents=True)
        (tmp_path / "images/once/UnlearnCanvas").rename(root / "data/UnlearnCanvas")
    else:
        LAYOUTS[layout](root)
    notes: list[str] = []
    index = build_index(root, notes)
    assert index.digest == build_index(tmp_path / "plain").digest
    images = open_images(tmp_path / "world", root, index)
    for style, object_, number, content in small_images():
        (path,) = images.files([(style, object_, number)], tmp_path)
        assert path.read_bytes() == content
    is_plain = layout in ("as documented", "linked styles", "litter of other systems")
    assert bool(notes) is not is_plain, "accepted deviations are reported"


def shards(root: Path) -> None:
    write_parquet(root / "data", iter(small_images()), 5)


def linked_data(root: Path) -> None:
    shards(root.parent / "elsewhere")
    root.mkdir(parents=True, exist_ok=True)
    (root / "data").symlink_to(root.parent / "elsewhere/data")


def shards_with_apple_double_files(root: Path) -> None:
    shards(root)
    for path in list((root / "data").iterdir()):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")


def hidden_folder(root: Path) -> None:
    shards(root)
    shutil.copytree(root / "data", root / ".cache/data")


def circular_link(root: Path) -> None:
    shards(root)
    (root / "data/again").symlink_to(root)


def capital_parquet(root: Path) -> None:
    shards(root)
    for path in list((root / "data").iterdir()):
        path.rename(path.with_suffix(".PARQUET"))


@pytest.mark.parametrize(
    "arrange", [shards, linked_data, shards_with_apple_double_files, hidden_folder, circular_link, capital_parquet]
)
def test_the_same_images_are_found_in_parquet_files_at_any_location(
    arrange: Callable[[Path], None], tmp_path: Path
) -> None:
    write_image_folder(tmp_path / "plain", iter(small_images()))
    root = tmp_path / "hub/here"
    arrange(root)
    index = build_index(root)
    assert index.digest == build_index(tmp_path / "plain").digest
    images = open_images(tmp_path / "world", root, index)
    assert images.read("Monet", "Cats", 1).size == (24, 24)


@pytest.mark.parametrize("write", [write_image_folder, write_parquet])
@pytest.mark.parametrize("name", ["images.parquet", "index/images.parquet"])
def test_an_index_beside_the_images_is_not_read_as_images(
    write: Callable[..., object], name: str, tmp_path: Path
) -> None:
    root = tmp_path / "here"
    write(root, iter(small_images()))
    first = build_index(root)
    write_index(root / name, first)
    assert build_index(root) == first


# Rejected layouts


def test_the_content_of_the_folder_of_a_missing_image_is_reported(tmp_path: Path) -> None:
    root = tmp_path / "here"
    write_image_folder(root, iter(small_images()))
    for number in (1, 2, 3):
        (root / f"Monet/Cats/{number}.jpg").rename(root / f"Monet/Cats/{number}.webp")
    shutil.rmtree(root / "Monet/Dogs")
    (root / "Monet/Dogs").mkdir()
    (root / "Monet/Dogs/.DS_Store").touch()
    (root / "Seed_Images/Cats").rename(root / "Seed_Images/Kittens")
    error = faults_of(root)
    assert "Monet/Cats/1.jpg: missing, its folder has 1.webp, 2.webp and 3.webp" in error
    assert "Monet/Dogs/1.jpg: missing, its folder is empty" in error
    assert "Seed_Images/Cats/1.jpg: missing, Seed_Images has Dogs and Kittens" in error


def test_the_content_of_a_folder_without_styles_and_the_expected_layout_are_reported(tmp_path: Path) -> None:
    root = tmp_path / "here"
    root.mkdir()
    for name in ("cats.zip", "dogs.zip", "fishes.zip", "readme.md", "Thumbs.db"):
        (root / name).touch()
    error = faults_of(root).splitlines()[0]
    assert "missing, here has cats.zip, dogs.zip, fishes.zip and 1 more" in error
    assert "expected STYLE/OBJECT/INDEX.jpg or parquet files" in error


def test_an_empty_folder_is_reported_as_empty(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    assert "missing, here is empty" in faults_of(tmp_path / "here")


def test_an_image_with_two_candidate_files_is_ambiguous(tmp_path: Path) -> None:
    root = tmp_path / "here"
    write_image_folder(root, iter(small_images()))
    (root / "Monet/Cats/1.jpg").rename(root / "Monet/Cats/01.jpg")
    shutil.copy(root / "Monet/Cats/2.jpg", root / "Monet/Cats/1.PNG")
    assert "Monet/Cats/1.jpg: it may be 01.jpg or 1.PNG, expected only one of them" in faults_of(root)
    shutil.copy(root / "Monet/Cats/01.jpg", root / "Monet/Cats/1.jpg")  # the documented name takes precedence
    build_index(root)


def test_a_style_with_two_candidate_folders_is_ambiguous(tmp_path: Path) -> None:
    root = tmp_path / "here"
    write_image_folder(root, iter(small_images()))
    (root / "Seed_Images").rename(root / "Seed_Image")
    shutil.copytree(root / "Seed_Image", root / "Photos")
    assert "Seed_Images: it may be Photos or Seed_Image, expected only one of them" in faults_of(root)


def test_cells_numbered_from_0_and_from_1_are_not_mixed(tmp_path: Path) -> None:
    root = tmp_path / "here"
    write_image_folder(root, iter(small_images()))
    for number in (1, 2, 3):
        (root / f"Monet/Cats/{number}.jpg").rename(root / f"Monet/Cats/{number - 1}.jpg")
    error = faults_of(root)
    assert "Monet/Cats/3.jpg: missing, its folder has 0.jpg, 1.jpg and 2.jpg" in error


def test_styles_in_two_folders_are_ambiguous(tmp_path: Path) -> None:
    root = tmp_path / "here"
    for name in ("first", "second"):
        write_image_folder(root / name, iter(small_images()))
    assert "styles are in first and in second, expected a single folder of styles" in faults_of(root)
