"""A job whose stage writes one file, in its own process and working directory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from support.checkout import REPOSITORY
from support.records import specification

from corelib.files.sealed_json import write_record
from corelib.runs.environment import prepare_environment
from corelib.runs.fingerprint import code_digests, package_versions

SCRIPT = """
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import corelib.runs.job_provenance
from corelib.files.atomic import atomic_write
from corelib.runs.job import run_job
from corelib.settings.section import Section
from corelib.runs.stage_context import StageResult


class Toy(Section):
    does: str


def stage(settings, context):
    with (context.folder / "attempts").open("a") as stream:
        stream.write("x")
    if settings.does == "fails":
        raise ValueError("a bug")
    if settings.does == "sets the clock back":
        corelib.runs.job_provenance.datetime = SimpleNamespace(now=lambda: datetime.now() - timedelta(hours=1))
    with atomic_write(context.folder / "made.txt") as temporary:
        temporary.write_text("half")
        while settings.does == "waits" and not Path("go").exists():
            time.sleep(0.02)
        temporary.write_text("whole")
    return StageResult(["made.txt"], {"is": "there"})


class Parameters(dict):
    __getattr__ = dict.__getitem__


folder = Path("runs/toy/toy-0")
run_job(
    SimpleNamespace(
        log=["logs/toy.log"],
        params=Parameters(specification=str(folder / "specification.json")),
        output=SimpleNamespace(manifest=str(folder / "manifest.json")),
        scriptdir=str(Path(__file__).parent),
        resources={"gpu": 1},
    ),
    stage,
    Toy,
)
"""


@dataclass
class Toy:
    """A run whose stage writes one file, in its own working directory.

    Attributes:
        place: the working directory.
        variables: variables of the user's environment, before Snakemake prepares it for jobs.
        set_again: variables that are set again after that, for the job alone.
    """

    place: Path
    variables: dict[str, str] = field(default_factory=dict)
    set_again: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.place / "runs/toy/toy-0"

    @property
    def log(self) -> str:
        return (self.place / "logs/toy.log").read_text()

    @property
    def attempts(self) -> int:
        return len((self.folder / "attempts").read_text())

    def start(self) -> subprocess.Popen[str]:
        prepare_environment(environment := {**os.environ, **self.variables}, REPOSITORY)
        return subprocess.Popen(
            [sys.executable, str(self.place / "toy.py")],
            cwd=self.place,
            env=environment | self.set_again,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self) -> int:
        return self.start().wait(60)

    def start_writing(self) -> subprocess.Popen[str]:
        process = self.start()
        self.wait_until(lambda: any(path.name.startswith(".made.txt") for path in self.folder.iterdir()))
        return process

    def wait_until(self, holds: Callable[[], bool]) -> None:
        until = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < until
            time.sleep(0.02)

    def files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


def toy_at(place: Path, does: str = "works", first: str = "", meanwhile: str = "") -> Toy:
    """A toy job. Its script begins with the statements `first`, and its stage executes the statements `meanwhile`."""
    script = place / "toy.py"
    work = '    with (context.folder / "attempts").open("a") as stream:\n'
    assert work in SCRIPT
    script.write_text(first + SCRIPT.replace(work, "".join(f"    {line}\n" for line in meanwhile.splitlines()) + work))
    content = {
        "settings": {"does": does},
        "threads": 1,
        "code": code_digests(script),
        "packages": package_versions(script),
    }
    made = Toy(place)
    made.folder.mkdir(parents=True)
    write_record(made.folder / "specification.json", specification("toy", "toy", **content))
    return made


UNFINISHED = {"specification.json", "attempts", "manifest.attempts.json"}
MADE = {"specification.json", "attempts", "made.txt", "manifest.json", "manifest.provenance.json"}
