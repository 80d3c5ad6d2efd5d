"""The benchmark's own FID features, compared with a second implementation of its evaluator; and faulty files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cleanfid.fid import get_files_features
from numpy.typing import NDArray
from PIL import Image
from support.checkout import REPOSITORY
from support.small_world import finish
from torchvision.models import inception_v3

from corelib.errors import AssetError
from corelib.evaluation.features import benchmark_resize, extract_features
from corelib.evaluation.fid import frechet_distance
from corelib.evaluation.opencv_resize import resize_float32, resize_uint8
from corelib.files.hashing import sha256_of_path
from corelib.models.inception import _Inception
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.evaluation import FID

OPENCV = json.loads((REPOSITORY / "tests/listings/opencv-resize.json").read_text())["images"]
BENCHMARK = FID(mode="benchmark", reference_images=[1], batch=3)


def pixels_of_opencv(image: Image.Image) -> torch.Tensor:
    """fid.py: `cv2.resize(im, (512, 512))` on bytes, `/ 255`, `cv2.resize(im, (299, 299))`."""
    pixels = resize_uint8(np.asarray(image), 512)
    return torch.from_numpy(resize_float32(pixels.astype(np.float32) / 255, 299)).permute(2, 0, 1)


def noise(width: int, height: int) -> NDArray[np.uint8]:
    return np.random.default_rng([width, height]).integers(0, 256, (height, width, 3), dtype=np.uint8)


class PartialInception(torch.nn.Module):
    """fid.py: the pooled output of Mixed_7c, taken by a hook; the input is scaled to [-1, 1] before."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.network = inception_v3(weights=None, transform_input=True, init_weights=False)
        self.network.load_state_dict(torch.load(weights, weights_only=True))
        self.network.eval()
        self.network.Mixed_7c.register_forward_hook(self.keep_output)

    def keep_output(self, _module: object, _inputs: object, output: torch.Tensor) -> None:
        self.output = output

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.network(x * 2 - 1)
        return torch.nn.functional.adaptive_avg_pool2d(self.output, (1, 1)).view(len(x), 2048)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Assets with random weights of torchvision's Inception, initialised so that the features of images differ."""
    folder = tmp_path_factory.mktemp("world")
    torch.manual_seed(0)
    network = inception_v3(weights=None, init_weights=False)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(layer.weight)
    torch.save(network.state_dict(), folder / "inception_v3_google.pth")
    facts = {"weights": "inception_v3_google.pth", "sha256": sha256_of_path(folder / "inception_v3_google.pth")}
    return finish(folder, "assets", StageResult([], {"inception_torchvision": facts}))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(1)
    paths = []
    for number, size in enumerate([(512, 512), (512, 512), (640, 480), (900, 1200), (299, 299), (100, 60), (512, 512)]):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize(size)
        coarse.save(folder / f"{number}.png")
        paths.append(folder / f"{number}.png")
    return paths


@pytest.mark.parametrize("size", list(OPENCV))
def test_pixels_equal_those_of_opencv(size: str) -> None:
    """The listing contains OpenCV's results, and describes how they were computed."""
    image = Image.fromarray(noise(*map(int, size.split("x"))))
    expected = OPENCV[size]
    levels = resize_uint8(np.asarray(image), 512)
    assert hashlib.sha256(levels.tobytes()).hexdigest() == expected["bytes"]
    ours = benchmark_resize(image).permute(1, 2, 0).contiguous().numpy()
    assert ours.shape == (299, 299, 3) and ours.dtype == np.float32
    assert hashlib.sha256(ours.tobytes()).hexdigest() == expected["floats"]
    # Intel's library computes the sampling points with another precision, which differs between its versions.
    assert np.abs(ours[::61, ::61, 1].ravel() - np.array(expected["ipp"])).max() < 3e-5


def test_halves_are_rounded_up_where_four_pixels_become_one() -> None:
    pixels = np.array([[[0], [1]], [[1], [0]]], dtype=np.uint8).repeat(3, axis=2)
    assert resize_uint8(pixels, 1).tolist() == [[[1, 1, 1]]]


def test_an_image_of_the_target_size_is_unchanged() -> None:
    assert np.array_equal(resize_uint8(noise(512, 512), 512), noise(512, 512))


def test_features_equal_those_of_the_evaluator(world: Manifest, pictures: list[Path], tmp_path: Path) -> None:
    ours = extract_features(pictures, BENCHMARK, StageContext(tmp_path, "digest", {"inception": world}))
    pixels = torch.stack([pixels_of_opencv(Image.open(path)) for path in pictures])
    theirs = PartialInception(world.folder / "inception_v3_google.pth")(pixels)
    assert ours.shape == (len(pictures), 2048) and ours.dtype == torch.float64
    torch.testing.assert_close(ours.float(), theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))
    assert float(theirs.std(dim=0).max()) > 0, "the images differ"


def test_the_distance_equals_one_computed_with_numpy(world: Manifest, pictures: list[Path], tmp_path: Path) -> None:
    features = extract_features(pictures, BENCHMARK, StageContext(tmp_path, "digest", {"inception": world}))
    first, second = features[:4], features[3:]
    cov = [np.cov(part.numpy(), rowvar=False) for part in (first, second)]
    spread = [part - part.mean(dim=0) for part in (first, second)]
    # tr((S1 S2)^(1/2)) is the sum of the roots of the eigenvalues of the small matrix (A B')(A B')'
    small = (spread[0] @ spread[1].T).numpy()
    root = np.sqrt(np.clip(np.linalg.eigvalsh(small @ small.T), 0, None)).sum() / 3.0
    expected = float((first.mean(dim=0) - second.mean(dim=0)).square().sum()) + np.trace(cov[0]) + np.trace(cov[1])
    assert frechet_distance(first, second) == pytest.approx(expected - 2 * root, rel=1e-6)


def test_the_batch_size_changes_features_only_by_rounding(
    world: Manifest, pictures: list[Path], tmp_path: Path
) -> None:
    work = StageContext(tmp_path, "digest", {"inception": world})
    one = extract_features(pictures, BENCHMARK.model_copy(update={"batch": 1}), work)
    torch.testing.assert_close(
        extract_features(pictures, BENCHMARK, work), one, rtol=1e-4, atol=1e-4 * float(one.max())
    )


class Resizing(torch.nn.Module):
    """A module like the legacy TensorFlow network: it takes images of any size, and returns 2,048 features of each."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Identity()

    def forward(self, x: torch.Tensor, return_features: bool) -> torch.Tensor:
        small = torch.nn.functional.interpolate(x, size=(32, 64), mode="bilinear", align_corners=False)
        return small.mean(dim=1).flatten(1)


def test_legacy_features_of_images_of_any_size_equal_those_of_clean_fid_for_each_image(
    pictures: list[Path], tmp_path: Path
) -> None:
    torch.jit.script(Resizing()).save(tmp_path / "inception.pt")
    facts = {"weights": "inception.pt", "sha256": sha256_of_path(tmp_path / "inception.pt")}
    work = StageContext(
        tmp_path, "digest", {"inception": finish(tmp_path, "assets", StageResult([], {"inception": facts}))}
    )
    legacy = FID(mode="legacy_tensorflow", reference_images=[1], batch=3)

    def theirs(paths: list[Path]) -> torch.Tensor:
        network = _Inception(tmp_path / "inception.pt", resize_inside=True)
        files, device = [str(path) for path in paths], torch.device("cpu")
        features = get_files_features(
            files, network, num_workers=0, batch_size=3, device=device, mode=legacy.mode, verbose=False
        )
        return torch.from_numpy(features).double()

    assert torch.equal(extract_features(pictures, legacy, work), torch.cat([theirs([path]) for path in pictures]))
    of_one_size = [pictures[number] for number in (0, 1, 6, 0)]
    assert torch.equal(extract_features(of_one_size, legacy, work), theirs(of_one_size))


@pytest.mark.parametrize("damage", ["truncated", "other weights", "a pickle that would run code"])
def test_a_file_without_the_weights_is_reported_in_one_sentence(damage: str, world: Manifest, tmp_path: Path) -> None:
    path, original = tmp_path / "inception_v3_google.pth", world.folder / "inception_v3_google.pth"
    if damage == "truncated":
        path.write_bytes(original.read_bytes()[:100_000])
    elif damage == "other weights":
        torch.save({"fc.weight": torch.zeros(2, 2)}, path)
    else:
        torch.save({"fc.weight": Path.touch}, path)
    facts = {"weights": path.name, "sha256": sha256_of_path(path)}
    damaged = finish(tmp_path, "assets", StageResult([], {"inception_torchvision": facts}))
    with pytest.raises(AssetError, match=r"inception_v3_google.pth: not loadable as torchvision's Inception v3"):
        extract_features([], BENCHMARK, StageContext(tmp_path, "digest", {"inception": damaged}))


def test_a_study_with_the_evaluators_fid_needs_its_file() -> None:
    from corelib.study.consistency import find_inconsistencies
    from corelib.study.loading import load_study

    configuration = REPOSITORY / "config"
    for name, key in (("paper", "world.assets.inception_torchvision"), ("mini", "fid.mode")):
        study = load_study(name, configuration)
        wrong = study.model_copy(update={"fid": study.fid.model_copy(update={"mode": "benchmark"})})
        assert [inconsistency.key for inconsistency in find_inconsistencies(wrong)] == [key]
