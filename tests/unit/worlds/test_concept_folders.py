"""Folders of the user's own images: which files are found, and all faults together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.full_format import picture

from corelib.errors import AssetError
from corelib.files.text import natural_key
from corelib.worlds.assets.image_index import ImageIndex, RequiredImages
from corelib.worlds.assets.index_building import index_images


def jpeg(seed: str) -> bytes:
    return picture(np.random.default_rng(list(seed.encode())), side=16)


def write_images(folder: Path, names: list[str], start: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names, start):
        (folder / name).write_bytes(jpeg(f"{folder.parent.name} {folder.name} {number}"))


def index_of(root: Path, concepts: list[str], objects: list[str], count: int, notes: list[str]) -> ImageIndex:
    wanted = RequiredImages(concepts, objects or ["image"], count, has_objects=bool(objects))
    return index_images(root, wanted, None, 2, root.parent / "faults.txt", notes.append)


def test_files_of_a_concept_are_numbered_in_the_order_of_their_names(tmp_path: Path) -> None:
    root, notes = tmp_path / "photos", []
    write_images(root / "cat", ["10.jpg", "2.JPG", "b.png", ".hidden.jpg", "a.jpeg"])
    write_images(root / "Wild Dog", ["x9.jpg", "x10.jpg", "x11.jpg"])
    write_images(root / "unused", ["1.jpg"])
    (root / "cat" / "notes.txt").write_text("mine")
    index = index_of(root, ["wild_dog", "cat"], [], 3, notes)
    assert [(key, place.file) for key, place in index.places.items()] == [
        (("wild_dog", "image", 1), "Wild Dog/x9.jpg"),
        (("wild_dog", "image", 2), "Wild Dog/x10.jpg"),
        (("wild_dog", "image", 3), "Wild Dog/x11.jpg"),
        (("cat", "image", 1), "cat/2.JPG"),
        (("cat", "image", 2), "cat/10.jpg"),
        (("cat", "image", 3), "cat/a.jpeg"),
    ]
    assert any("Wild Dog is read as wild_dog" in note for note in notes)
    assert any("folders that no concept of the study names: unused" in note for note in notes)


def test_concepts_may_have_objects_even_a_single_one(tmp_path: Path) -> None:
    for objects in (["house", "tree"], ["house"]):
        root = tmp_path / f"{len(objects)}" / "photos"
        for concept in ("ink", "oil"):
            for object_ in ("house", "tree"):
                write_images(root / concept / object_, ["1.jpg", "2.jpg"])
        index = index_of(root, ["ink", "oil"], objects, 2, [])
        assert len(index.places) == 4 * len(objects)
        assert index.places["oil", "house", 2].file == "oil/house/2.jpg"


def test_the_digest_depends_on_content_and_not_on_the_names_of_files_and_folders(tmp_path: Path) -> None:
    for folder, names in (("first", ["1.jpg", "2.jpg"]), ("second", ["a.jpg", "b.jpg"]), ("third", ["2.jpg", "1.jpg"])):
        (tmp_path / folder).mkdir()
        write_images(tmp_path / folder / "photos/cat", names)
    digests = [
        index_of(tmp_path / folder / "photos", ["cat"], [], 2, []).digest for folder in ("first", "second", "third")
    ]
    assert digests[0] == digests[1] != digests[2]


def test_all_faults_are_reported_together(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    write_images(root / "cat", ["1.jpg"])
    write_images(root / "dog/brown", ["1.jpg", "2.jpg"])
    (root / "horse").mkdir()
    (root / "horse/1.webp").write_bytes(b"RIFF....WEBP")
    write_images(root / "cow", ["1.jpg", "2.jpg"])
    (root / "cow/2.jpg").write_bytes((root / "cow/1.jpg").read_bytes())
    write_images(root / "Owl", ["1.jpg", "2.jpg"])
    write_images(root / "OWL", ["3.jpg", "4.jpg"])
    write_images(root / "pig", ["1.jpg", "2.jpg"])
    (root / "pig/1.jpg").write_bytes(jpeg("pig")[:200])
    with pytest.raises(AssetError) as caught:
        index_of(root, ["cat", "dog", "horse", "cow", "owl", "pig", "fox"], [], 2, [])
    assert "expected CONCEPT/FILE.jpg with 14 complete, distinct images" in str(caught.value)
    faults = (tmp_path / "faults.txt").read_text()
    for expected in (
        f"{root}/cat: it has 1 image, expected at least 2 images",
        f"{root}/dog: it has 0 images but folders such as brown, which may belong in `world.objects`, expected",
        f"{root}/horse: it has 0 images and 1 files such as 1.webp, which must be converted to JPEG or PNG, expected",
        f"{root}: cow/2.jpg has the same bytes as cow/1.jpg",
        f"{root}/owl: it may be OWL or Owl, expected only one of them",
        f"{root}/pig/1.jpg: damaged",
        f"{root}: it has no folder fox, but ",
    ):
        assert expected in faults, faults


def test_numbers_in_names_are_compared_by_value() -> None:
    names = ["img10", "img9", "Img1", "a", "img09b", "img9a"]
    assert sorted(names, key=lambda name: (natural_key(name.casefold()), name)) == [
        "a",
        "Img1",
        "img9",
        "img9a",
        "img09b",
        "img10",
    ]
