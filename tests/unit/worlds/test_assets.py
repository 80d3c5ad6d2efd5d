"""`make assets` with a Hub on loopback: every asset is downloaded once, verified and locked."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from support.checkout import REPOSITORY, Checkout
from support.full_format import (
    REDUCED,
    UNUSED_STYLES,
    benchmark_images,
    write_assets,
    write_image_folder,
    write_parquet,
)
from support.hub import Hub, Repository

from corelib.files.hashing import sha256_of_path
from corelib.study.loading import load_study
from corelib.worlds.assets.asset_lock import lock_entry

PAPER = load_study("paper", REPOSITORY / "config")
IMAGES_PER_CELL = 2
OVERLAY = f"""\
world: {{images_per_cell: {IMAGES_PER_CELL}, assets: {{classifier_architecture: {REDUCED.classifier}, %s}}}}
training: {{images: [1]}}
fid: {{reference_images: [1]}}
"""
DATASET, MODEL = ("dataset", "OPTML-Group/UnlearnCanvas"), ("model", "NormalUhr/UnlearnCanvas-ckpts")
UNET = "diffusion/diffuser/style50/unet/diffusion_pytorch_model.safetensors"
INCEPTION = "/metrics/inception-2015-12-05.pt"


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small version of the published files: a dataset, a model, and a file on another server."""
    folder = tmp_path_factory.mktemp("published")
    write_assets(folder, REDUCED, PAPER.world.styles, PAPER.world.objects)
    styles = sorted([*PAPER.world.styles, *UNUSED_STYLES])
    write_parquet(folder / "dataset/data", benchmark_images(styles, PAPER.world.objects, IMAGES_PER_CELL))
    return folder


def _heeds_ctrl_c() -> None:
    """Restore Ctrl-C: processes that a shell starts in the background ignore it, and so would these tests."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class Site:
    """A clone of the workflow whose sources are on loopback."""

    checkout: Checkout
    hub: Hub

    @property
    def lock(self) -> dict:
        return json.loads((self.checkout.folder / "config/assets.lock.json").read_text())

    def make(self, *arguments: str, endpoint: str | None = None) -> subprocess.CompletedProcess[str]:
        return self.start(*arguments, endpoint=endpoint, wait=True)

    def start(self, *arguments: str, endpoint: str | None = None, wait: bool = False):
        environment = {**os.environ, "HF_ENDPOINT": endpoint or self.hub.url, "HF_HUB_DISABLE_XET": "1"}
        environment |= {"HF_HOME": str(self.checkout.folder / "hf"), "HF_HUB_DOWNLOAD_TIMEOUT": "3"}
        command = [sys.executable, "-m", "corelib", "assets", "small", *arguments]
        options = {"cwd": self.checkout.folder, "env": environment, "text": True}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        if wait:
            return subprocess.run(command, **options, **streams, timeout=240)
        return subprocess.Popen(command, **options, preexec_fn=_heeds_ctrl_c)

    def fails(self, *arguments: str, endpoint: str | None = None) -> str:
        """The single error sentence of a failing call."""
        done = self.make(*arguments, endpoint=endpoint)
        assert done.returncode == 1, done.stdout
        assert "Traceback" not in done.stdout
        sentences = [line for line in done.stdout.splitlines() if line.startswith("Error: ")]
        assert len(sentences) == 1
        return sentences[0]


@pytest.fixture
def site(published: Path, tmp_path: Path) -> Iterator[Site]:
    repositories = {
        DATASET: Repository(published / "dataset"),
        MODEL: Repository(published / "UnlearnCanvas-ckpts", commit="89abcdef0123456789abcdef0123456789abcdef"),
    }
    checkout = Checkout.at(tmp_path / "clone")
    (checkout.folder / "config/studies/small.yaml").write_text(OVERLAY % "")
    with Hub(repositories, {INCEPTION: published / "inception-2015-12-05.pt"}) as hub:
        sources = checkout.folder / "config/assets.yaml"
        url = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained" + INCEPTION
        assert sources.read_text().count(url) == 1
        sources.write_text(sources.read_text().replace(url, hub.url + INCEPTION))
        yield Site(checkout, hub)


@pytest.fixture(scope="session")
def fetched(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `assets` and the lock after an undisturbed `make assets`."""
    folder = tmp_path_factory.mktemp("fetched")
    generator = site.__wrapped__(published, folder)
    fresh_site = next(generator)
    done = fresh_site.make()
    assert done.returncode == 0, done.stdout
    assert "All 9 assets match " in done.stdout
    generator.close()
    return folder / "clone"


def hashes_in(assets: dict) -> dict[str, str]:
    """The hashes of locked assets, without their sources, which contain the port of a server."""
    return {place: asset["sha256"] for place, asset in assets.items()}


def copy_assets(fetched: Path, site: Site) -> None:
    """Copy the assets and the lock file of an undisturbed `make assets` to a site."""
    shutil.copytree(fetched / "assets", site.checkout.folder / "assets")
    shutil.copy(fetched / "config/assets.lock.json", site.checkout.folder / "config")


# Downloads


def test_everything_is_downloaded_once_and_locked_with_its_source(fetched: Path, published: Path) -> None:
    lock = json.loads((fetched / "config/assets.lock.json").read_text())
    assert lock["revisions"] == {
        "dataset OPTML-Group/UnlearnCanvas": "0123456789abcdef0123456789abcdef01234567",
        "model NormalUhr/UnlearnCanvas-ckpts": "89abcdef0123456789abcdef0123456789abcdef",
    }
    base = "assets/UnlearnCanvas-ckpts/diffusion/diffuser/style50"
    parts = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    places = [f"{base}/{part}" for part in parts]
    places += [f"assets/UnlearnCanvas-ckpts/cls_model/{name}.pth" for name in ("style50", "style50_cls")]
    assert set(lock["assets"]) == {*places, "assets/UnlearnCanvas", "assets/inception-2015-12-05.pt"}
    for place in places:
        assert lock["assets"][place]["sha256"] == sha256_of_path(published / place.removeprefix("assets/"))
        assert lock["assets"][place]["source"].startswith("model NormalUhr/UnlearnCanvas-ckpts at 89abcdef")
    assert lock["assets"]["assets/inception-2015-12-05.pt"]["source"].endswith(INCEPTION)


def test_nothing_is_fetched_that_the_study_does_not_use(fetched: Path) -> None:
    names = {path.name for path in (fetched / "assets/UnlearnCanvas-ckpts/diffusion").rglob("*")}
    assert "unet" in names and not names & {"unet_ema", "compvis.ckpt", "safety_checker"}


@pytest.mark.slow
def test_the_average_is_fetched_if_the_study_uses_it(site: Site) -> None:
    (site.checkout.folder / "config/studies/small.yaml").write_text(OVERLAY % "weights: ema")
    assert site.make().returncode == 0
    base = site.checkout.folder / "assets/UnlearnCanvas-ckpts/diffusion/diffuser/style50"
    assert (base / "unet_ema").is_dir() and not (base / "unet").exists()


def test_a_second_call_does_not_use_the_network(fetched: Path, site: Site) -> None:
    copy_assets(fetched, site)
    before = site.lock
    done = site.make(endpoint="http://127.0.0.1:9")
    assert done.returncode == 0, done.stdout
    assert site.lock == before
    assert site.hub.requests == []


@pytest.mark.slow
def test_locked_images_are_read_again_on_request(fetched: Path, site: Site) -> None:
    copy_assets(fetched, site)
    shard = next((site.checkout.folder / "assets/UnlearnCanvas/data").glob("*.parquet"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert site.make().returncode == 0
    assert "UnlearnCanvas" in site.fails("--again")


# Interruptions


def test_an_interrupted_transfer_resumes_within_a_call(site: Site, published: Path) -> None:
    """The client repeats the request by itself. The second request must be for the rest of the file."""
    size = (published / "UnlearnCanvas-ckpts" / UNET).stat().st_size
    site.hub.cut[UNET] = size // 2
    assert site.make().returncode == 0
    first, second = site.hub.request_starts(UNET)
    assert first == 0 < second <= size // 2
    path = site.checkout.folder / "assets/UnlearnCanvas-ckpts" / UNET
    assert sha256_of_path(path) == sha256_of_path(published / "UnlearnCanvas-ckpts" / UNET)


@pytest.mark.parametrize("how", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL])
def test_a_transfer_resumes_after_a_call_that_was_stopped(
    how: signal.Signals, site: Site, published: Path, fetched: Path
) -> None:
    """The server goes silent in the middle of a file; the user presses Ctrl-C, or the machine goes down."""
    size = (published / "UnlearnCanvas-ckpts" / UNET).stat().st_size
    site.hub.stall[UNET] = size // 2
    process = site.start()
    deadline = time.monotonic() + 120
    while not site.hub.request_starts(UNET) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(how)
    assert process.wait(30) == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert not (site.checkout.folder / "assets/UnlearnCanvas-ckpts" / UNET).exists()
    shard = site.hub.request_starts("data/train-00000-of-00001.parquet")
    assert site.make().returncode == 0
    assert site.hub.request_starts("data/train-00000-of-00001.parquet") == shard  # complete, so not requested again
    first, second = site.hub.request_starts(UNET)
    assert first == 0 < second <= size // 2
    undisturbed = json.loads((fetched / "config/assets.lock.json").read_text())["assets"]
    assert hashes_in(site.lock["assets"]) == hashes_in(undisturbed)


@pytest.mark.slow
def test_a_transfer_from_another_server_resumes(site: Site, published: Path) -> None:
    content = (published / "inception-2015-12-05.pt").read_bytes()
    part = site.checkout.folder / "assets/.inception-2015-12-05.pt.part"
    part.parent.mkdir()
    part.write_bytes(content[: len(content) // 3])
    assert site.make().returncode == 0
    assert site.hub.request_starts(INCEPTION) == [len(content) // 3]
    assert sha256_of_path(part.with_name("inception-2015-12-05.pt")) == sha256_of_path(
        published / "inception-2015-12-05.pt"
    )


# Faults, each in one sentence


def test_a_file_that_does_not_match_the_hubs_hash_is_removed(site: Site) -> None:
    site.hub.wrong.add(UNET)
    error = site.fails()
    assert f"assets/UnlearnCanvas-ckpts/{UNET}: the downloaded file does not match the hash" in error
    assert not (site.checkout.folder / "assets/UnlearnCanvas-ckpts" / UNET).exists()
    assert "assets/UnlearnCanvas-ckpts" not in str(site.lock["assets"])
    site.hub.wrong.clear()
    assert site.make().returncode == 0


@pytest.mark.slow
def test_small_files_are_checked_too(site: Site) -> None:
    site.hub.wrong.add("diffusion/diffuser/style50/unet/config.json")
    assert "unet/config.json: the downloaded file does not match the hash" in site.fails()


@pytest.mark.slow
def test_a_url_whose_hash_is_known_is_checked_against_it(site: Site) -> None:
    site.checkout.edit("config/assets.yaml", "sha256: null", "sha256: abcdef")
    error = site.fails()
    assert "assets/inception-2015-12-05.pt: the file from" in error and "expected abcdef" in error
    assert not (site.checkout.folder / "assets/inception-2015-12-05.pt").exists()


def test_no_network(site: Site) -> None:
    error = site.fails(endpoint="http://127.0.0.1:9")
    assert "dataset OPTML-Group/UnlearnCanvas: http://127.0.0.1:9 cannot be reached" in error
    assert "run `make assets` again with a network connection" in error


@pytest.mark.slow
def test_a_server_without_the_file_is_named(site: Site, published: Path) -> None:
    site.hub.files.clear()
    assert f"{site.hub.url}{INCEPTION}" in site.fails()


def test_a_missing_repository(site: Site) -> None:
    del site.hub.repositories[MODEL]
    assert "model NormalUhr/UnlearnCanvas-ckpts: the Hub has no such repository" in site.fails()
    assert site.hub.request_starts(".parquet") == []  # reported before hours of transfers


def test_a_gated_repository(site: Site) -> None:
    site.hub.repositories[MODEL] = replace(site.hub.repositories[MODEL], gated=True)
    assert "gated repository; request access" in site.fails()


def test_a_missing_revision(site: Site) -> None:
    site.checkout.edit(
        "config/assets.yaml",
        "repository: OPTML-Group/UnlearnCanvas, revision: null",
        "repository: OPTML-Group/UnlearnCanvas, revision: v7",
    )
    assert "dataset OPTML-Group/UnlearnCanvas: it has no revision 'v7'" in site.fails()


def test_a_locked_revision_is_kept_when_the_repository_moves_on(site: Site, fetched: Path) -> None:
    copy_assets(fetched, site)
    shutil.rmtree(site.checkout.folder / "assets/UnlearnCanvas-ckpts/cls_model")
    old = site.hub.repositories[MODEL]
    site.hub.repositories[MODEL] = replace(old, commit="f" * 40)
    assert f"it has no revision '{old.commit}'" in site.fails()


def test_a_file_that_is_missing_from_the_repository(site: Site, published: Path, tmp_path: Path) -> None:
    shutil.copytree(published / "UnlearnCanvas-ckpts", tmp_path / "model")
    (tmp_path / "model/cls_model/style50_cls.pth").unlink()
    site.hub.repositories[MODEL] = Repository(tmp_path / "model")
    error = site.fails()
    assert "no file matches cls_model/style50_cls.pth" in error
    assert "set its path in `world.assets` of your study" in error
    assert site.hub.request_starts(".parquet") == []


def test_an_asset_that_has_changed_since_it_was_locked(site: Site, fetched: Path) -> None:
    copy_assets(fetched, site)
    base = site.checkout.folder / "assets/UnlearnCanvas-ckpts"
    content = bytearray((base / UNET).read_bytes())
    content[-1] ^= 1
    (base / UNET).write_bytes(content)
    error = site.fails()
    assert f"{UNET} has the sha256 {sha256_of_path(base / UNET)[:12]}, expected" in error and "as locked" in error
    assert "remove the entry 'assets/UnlearnCanvas-ckpts/diffusion/diffuser/style50/unet' from" in error


def test_a_classifier_that_cannot_be_loaded_is_not_locked(site: Site, published: Path, tmp_path: Path) -> None:
    shutil.copytree(published / "UnlearnCanvas-ckpts", tmp_path / "model")
    path = tmp_path / "model/cls_model/style50.pth"
    content = torch.load(path, weights_only=True)
    content["model_state_dict"]["head.weight"][3, 3] = float("nan")
    torch.save(content, path)
    site.hub.repositories[MODEL] = Repository(tmp_path / "model")
    place = "assets/UnlearnCanvas-ckpts/cls_model/style50.pth"
    assert f"{place}: not the weights of VisionTransformer (1 of its tensors hold values that are not" in site.fails()
    assert place not in site.lock["assets"] and len(site.lock["assets"]) == 8
    done = site.checkout.python("-m", "corelib", "preflight", "small")
    assert done.returncode == 1 and f"{place} is not locked yet" in done.stdout


def test_a_damaged_lock(site: Site) -> None:
    (site.checkout.folder / "config/assets.lock.json").write_text('{"assets": {"x": {"sha256": "no"}}}')
    assert "assets.lock.json: not readable as a lock file of assets" in site.fails()


def test_too_little_disk_space(site: Site) -> None:
    old = "gigabytes: 0.1\n  licence: NVIDIA"
    site.checkout.edit("config/assets.yaml", old, old.replace("0.1", "1.0e+9"))
    error = site.fails()
    assert "GB are free, expected" in error and "GB for the download" in error
    assert site.hub.request_starts(".parquet") == []


# Copies that exist already


def test_existing_copies_are_used_in_place_and_never_modified(site: Site, published: Path, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    shutil.copytree(published / "UnlearnCanvas-ckpts", copies / "models")
    shutil.copy(published / "inception-2015-12-05.pt", copies / "inception.pt")
    write_image_folder(copies / "images", benchmark_images(PAPER.world.styles, PAPER.world.objects, IMAGES_PER_CELL))
    places = {
        "images": "images",
        "pipeline": "models/diffusion/diffuser/style50",
        "style_classifier": "models/cls_model/style50.pth",
        "object_classifier": "models/cls_model/style50_cls.pth",
        "inception": "inception.pt",
    }
    leaves = ", ".join(f"{name}: {copies / place}" for name, place in places.items())
    (site.checkout.folder / "config/studies/small.yaml").write_text(OVERLAY % leaves)
    before = sha256_of_path(copies), sorted(path for path in copies.rglob("*"))
    for path in copies.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    done = site.make(endpoint="http://127.0.0.1:9")
    assert done.returncode == 0, done.stdout
    assert (sha256_of_path(copies), sorted(path for path in copies.rglob("*"))) == before
    assert site.lock["assets"][f"{copies}/images"]["source"] == "the user's own copy"
    for path in copies.rglob("*"):
        path.chmod(0o755)


def test_a_missing_copy_is_named(site: Site) -> None:
    (site.checkout.folder / "config/studies/small.yaml").write_text(OVERLAY % "inception: /nowhere/inception.pt")
    error = site.fails()
    assert "world.assets.inception is /nowhere/inception.pt, which is missing" in error
    assert "assets/inception-2015-12-05.pt, where `make assets` stores its downloads" in error
    assert site.hub.requests == []


def test_the_index_of_images_never_replaces_another_file(site: Site, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    (site.checkout.folder / "config/studies/small.yaml").write_text(OVERLAY % f"image_index: {notes}")
    error = site.fails()
    assert f"world.assets.image_index is {notes}, which exists and is not an index of images" in error
    assert notes.read_text() == "mine"
    assert site.hub.requests == []


def test_a_study_without_assets(site: Site) -> None:
    done = site.checkout.python("-m", "corelib", "assets", "tiny")
    assert done.returncode == 1
    assert done.stdout.startswith("Error: study tiny: world.kind is 'miniature', which needs no assets")


def test_the_locked_hash_of_a_folder_is_its_hash_in_manifests(tmp_path: Path) -> None:
    for name in ("b/second", "a first", "b/a/third", ".hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert lock_entry(tmp_path, "the test").sha256 == sha256_of_path(tmp_path)
    assert lock_entry(tmp_path / "a first", "the test").sha256 == sha256_of_path(tmp_path / "a first")
