"""The pins are exact, the same for pip and conda, and equal to the installed versions."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.checkout import REPOSITORY

from corelib.files.yaml_files import read_yaml
from corelib.runs.fingerprint import NUMERICAL_PACKAGES
from corelib.runs.gpu import driver_advice
from corelib.runs.pins import differing_versions


def pins(name: str) -> dict[str, str]:
    lines = (REPOSITORY / "envs" / name).read_text().splitlines()
    found = [re.fullmatch(r"([A-Za-z0-9_.-]+)==(\S+)", line) for line in lines if line and not line.startswith("#")]
    assert all(found), "every line is an exact pin"
    return {re.sub(r"[-_.]+", "-", match[1]).lower(): match[2] for match in found if match}


def test_the_conda_environment_has_the_same_pins() -> None:
    environment = read_yaml(REPOSITORY / "envs/core.yaml")
    listed = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert sorted(listed) == sorted(
        line for line in (REPOSITORY / "envs/requirements.txt").read_text().splitlines() if not line.startswith("#")
    )


def test_installed_versions_are_the_pinned_ones() -> None:
    older = pins("requirements-cuda12.txt")
    is_older = importlib.metadata.version("torch").split("+")[0] == older["torch"]
    wanted = {**pins("requirements.txt"), **(older if is_older else {}), **pins("requirements-dev.txt")}
    installed = {package: importlib.metadata.version(package).split("+")[0] for package in wanted}
    assert installed == {package: version.split("+")[0] for package, version in wanted.items()}
    assert differing_versions(REPOSITORY) == []


def test_the_pins_for_the_older_cuda_replace_only_torch() -> None:
    assert pins("requirements-cuda12.txt").keys() == {"torch", "torchvision"}


@pytest.mark.parametrize(
    ("found", "cuda", "advice"),
    [
        ("580.65.06", "13.2", None),
        ("575.57.08", "13.2", "the NVIDIA driver is 575.57.08, but CUDA 13.2 needs 580 or newer: make env CUDA=12"),
        ("535.230.02", "12.8", None),
        ("470.256.02", "13.2", "the NVIDIA driver is 470.256.02, but CUDA 13.2 needs 580 or newer"),
        ("470.256.02", "12.8", "the NVIDIA driver is 470.256.02, but CUDA 12.8 needs 525 or newer"),
        (None, "13.2", None),
        ("535.230.02", None, None),
    ],
)
def test_advice_for_an_old_driver_names_the_command(
    found: str | None, cuda: str | None, advice: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho {found}\n" if found else "#!/bin/sh\necho NVIDIA-SMI has failed\nexit 9\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert driver_advice(cuda) == advice


def test_snakemake_and_its_executor_have_the_intended_versions() -> None:
    assert pins("requirements.txt")["snakemake"] == "9.27.1"
    assert pins("requirements.txt")["snakemake-executor-plugin-slurm"] == "2.8.0"


def test_every_numerical_package_is_pinned() -> None:
    assert set(NUMERICAL_PACKAGES.values()) <= pins("requirements.txt").keys()


def test_torchvision_imports_beside_torch_without_a_gpu() -> None:
    import torch
    import torchvision

    assert torchvision.ops.nms(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([1.0]), 0.5).tolist() == [0]


@pytest.mark.parametrize("kind", ["a folder with files", "a link to an environment"])
def test_make_env_deletes_no_files_of_the_user(kind: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    venv = mine
    if kind == "a link to an environment":
        (mine / "pyvenv.cfg").touch()
        venv = tmp_path / "link"
        venv.symlink_to(mine)
    command = ["make", "env", f"VENV={venv}", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"make: {venv} " in done.stdout
    assert (mine / "notes.txt").read_text() == "mine"
