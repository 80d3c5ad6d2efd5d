"""`pip install .`: every module, the configuration, and dependencies that include the pinned versions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from support.checkout import REPOSITORY

from corelib.in_memory import paper_methods
from corelib.in_memory.paper_methods import paper_study

SOURCES = ["corelib", "config", "pyproject.toml", "setup.py", "README.md", "LICENSE"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed the package, without a network."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    for name in SOURCES:
        path = REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source)
    options = ["--quiet", "--no-index", "--no-build-isolation", "--no-deps", "--no-compile"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", target, source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return target


def probe(installed: Path, code: str) -> str:
    """What code prints that imports the installed package, far from the clone."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=installed, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def files(folder: Path, pattern: str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob(pattern)}


def test_every_module_is_installed_and_is_the_one_that_is_imported(installed: Path) -> None:
    assert files(installed / "corelib", "*.py") == files(REPOSITORY / "corelib", "*.py")
    assert (installed / "corelib/py.typed").exists()
    code = "import corelib.library as library; print(library.__file__, *library.__all__)"
    path, *names = probe(installed, code).split()
    assert Path(path) == installed / "corelib/library.py"
    assert {"unlearn", "apply_delta", "evaluate_styles", "frechet_distance"} <= set(names)


def test_the_configuration_is_installed_once_and_is_that_of_the_clone(installed: Path) -> None:
    assert files(installed, "*.yaml") == {"corelib/configuration/config.yaml"}
    code = "from corelib.in_memory.paper_methods import paper_study; print(paper_study().model_dump_json())"
    assert probe(installed, code) == paper_study().model_dump_json()
    assert paper_methods.configuration_folder() == REPOSITORY / "config"


def test_the_installed_version_is_that_of_the_code(installed: Path) -> None:
    code = "import importlib.metadata; print(importlib.metadata.version('corelib'))"
    assert probe(installed, code) == probe(installed, "from corelib.version import VERSION; print(VERSION)")


def test_the_dependencies_include_the_pinned_versions() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = (REPOSITORY / "envs/requirements.txt").read_text().splitlines()
    pinned = dict(line.lower().split("==") for line in lines if "==" in line)
    wanted = [Requirement(text) for text in project["dependencies"]]
    assert [str(need) for need in wanted if not need.specifier.contains(pinned[need.name])] == []
