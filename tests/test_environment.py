"""The pins: exact, the same for pip and conda, and what is installed."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest

from corelib.addresses import NUMERICAL_PACKAGES
from corelib.yaml_files import read_yaml

REPOSITORY = Path(__file__).resolve().parent.parent


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


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_what_is_installed_is_what_is_pinned(name: str) -> None:
    installed = {package: importlib.metadata.version(package).split("+")[0] for package in pins(name)}
    assert installed == {package: version.split("+")[0] for package, version in pins(name).items()}


def test_the_versions_that_the_workflow_was_made_for() -> None:
    assert pins("requirements.txt")["snakemake"] == "9.27.1"
    assert pins("requirements.txt")["snakemake-executor-plugin-slurm"] == "2.8.0"


def test_every_numerical_package_is_pinned() -> None:
    assert set(NUMERICAL_PACKAGES.values()) <= pins("requirements.txt").keys()


def test_torchvision_imports_beside_torch_without_a_gpu() -> None:
    import torch
    import torchvision

    assert torchvision.ops.nms(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([1.0]), 0.5).tolist() == [0]
