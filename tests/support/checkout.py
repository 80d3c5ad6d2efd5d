"""Checkouts in which Snakemake runs, and folders that several test workers share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

REPOSITORY = Path(__file__).resolve().parents[2]
WORKFLOW = ["Snakefile", "workflow", "rules", "workflow_scripts", "corelib", "config", "envs", "profiles", "slurm"]


def link_configuration(folder: Path) -> Path:
    """A configuration folder of links to the shipped files, to which a test can add studies."""
    shipped = REPOSITORY / "config"
    (folder / "studies").mkdir(parents=True)
    for file in (*shipped.glob("*.*"), *shipped.glob("studies/*"), shipped / "presets", shipped / "pretrained"):
        (folder / file.relative_to(shipped)).symlink_to(file)
    return folder


@dataclass(frozen=True)
class Checkout:
    """A copy of the workflow in its own folder."""

    folder: Path

    @classmethod
    def at(cls, folder: Path) -> Checkout:
        folder.mkdir(parents=True, exist_ok=True)
        for name in WORKFLOW:
            source, target = REPOSITORY / name, folder / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        return cls(folder)

    def snakemake(self, *arguments: str, timeout: float = 1200) -> subprocess.CompletedProcess[str]:
        """Run Snakemake here, with standard output and standard error in one stream."""
        return self.python("-m", "snakemake", *arguments, timeout=timeout)

    def python(self, *arguments: str, timeout: float = 60, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Python here with additional environment variables, with both output streams in one."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )

    def planned(self, *targets: str) -> dict[str, int]:
        """The number of jobs of each rule in a dry run."""
        done = self.snakemake("--dry-run", *targets)
        assert done.returncode == 0, done.stdout
        if "Nothing to be done" in done.stdout:
            return {}
        lines = done.stdout.split("Job stats:")[-1].splitlines()[3:]
        counts = {}
        for line in lines:
            if not line.strip() or line.startswith("total"):
                break
            rule, count = line.split()
            counts[rule] = int(count)
        return counts

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace the only occurrence of a text in a file."""
        path = self.folder / name
        content = path.read_text()
        assert content.count(old) == 1, f"{name} has {content.count(old)} times {old!r}"
        path.write_text(content.replace(old, new))


def build_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that takes minutes to build: one worker builds it while the others wait."""
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, made = shared / name, shared / f"{name}.made"
    with FileLock(shared / f"{name}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            made.touch()
    return folder


TINY = ("results/tiny/table1.csv", "results/tiny/figure2.png")


@dataclass(frozen=True)
class Places:
    """The folder in which the tiny study was built, and a copy of its content after the build."""

    workplace: Path
    copy: Path
