"""Small tests of the faults that `tests/faults` has found, and a sample of its tests on the tiny study."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support.checkout import REPOSITORY, Checkout
from support.hand_made import write_manifest
from support.records import specification

from corelib.errors import ArtefactError
from corelib.files.json_files import read_json, write_json
from corelib.files.sealed_json import has_its_seal, sealed
from corelib.runs.checkpoint import Checkpoint, restore_optimizer
from corelib.runs.input_runs import read_inputs
from corelib.runs.job import _clear_leftovers
from corelib.runs.job_log import earlier_log
from corelib.runs.layout import MANIFEST
from corelib.runs.lease import Lease
from corelib.runs.lease_owner import Owner
from corelib.runs.manifest import matches_files, read_manifest
from corelib.runs.stage_registry import STAGES
from corelib.sampling.collection import is_complete
from corelib.sampling.grid import IMAGES

# The command


def test_an_unknown_stage_is_refused_before_anything_is_built() -> None:
    command = [sys.executable, str(REPOSITORY / "tests/faults"), "--kinds", "kills", "--stages", "unlearn"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and done.stdout == ""
    named = re.findall(r"'(\w+)'", done.stderr.split("choose from")[1])
    assert sorted(named or re.findall(r"\w+", done.stderr.split("choose from")[1])) == sorted([*STAGES, "gathering"])


# Bits


def flip(path: Path, at: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(bytes(content))


def test_training_does_not_resume_from_a_state_with_a_flipped_bit(tmp_path: Path) -> None:
    """torch does not compare its archives with their checksums."""
    path = tmp_path / "checkpoint.pt"
    state = {"step": 3, "trained": {"weight": torch.arange(64.0)}}
    Checkpoint(path, "run", 1.0).save(state)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole)
        flip(path, at, at % 8)
        loaded = Checkpoint(path, "run", 1.0).load()
        if loaded is not None:  # the bit is between the records
            assert loaded["step"] == 3 and torch.equal(loaded["trained"]["weight"], state["trained"]["weight"])


@pytest.mark.parametrize("shape", [(), (1,), (4, 2), (8, 1)])
def test_a_state_of_other_shapes_is_refused_and_not_broadcast(shape: tuple[int, ...], tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.Adam([parameter])
    parameter.grad = torch.ones(4)
    optimizer.step()
    state = optimizer.state_dict()
    state["state"][0]["exp_avg"] = torch.zeros(shape)
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", "run", 1.0)
    if shape == ():
        state["state"][0]["exp_avg"] = torch.zeros(2)
    with pytest.raises(ArtefactError, match="its state does not fit this training"), checkpoint.restoring():
        restore_optimizer(optimizer, state)


def test_no_flipped_bit_of_a_manifest_goes_unnoticed(tmp_path: Path) -> None:
    """Its facts are results, such as a Fréchet distance or the step of a divergence."""
    path = tmp_path / MANIFEST
    write_manifest(path, tmp_path, "fid", "digest", [], {"fid": 12.25, "images": 20})
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole)
        flip(path, at, at % 8)
        try:
            read = read_manifest(path)
        except ArtefactError:
            continue
        assert read.facts == {"fid": 12.25, "images": 20}  # the bit is in white space


def test_a_manifest_with_edited_facts_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path / MANIFEST, tmp_path, "fid", "digest", [], {"fid": 12.25})
    made = read_json(tmp_path / MANIFEST)
    assert matches_files(read_manifest(tmp_path / MANIFEST), tmp_path, "digest")
    write_json(tmp_path / MANIFEST, {**made, "facts": {"fid": 12.5}})
    with pytest.raises(ArtefactError, match="seal does not match its content"):
        read_manifest(tmp_path / MANIFEST)


def test_a_batch_whose_record_has_changed_is_sampled_again(tmp_path: Path) -> None:
    record = tmp_path / "batches/00000.json"
    record.parent.mkdir()
    (tmp_path / IMAGES).mkdir()
    record.write_text(json.dumps(sealed({"images": {}, "flagged": ["a.jpg"], "trained": {}})))
    assert is_complete(record, {})
    record.write_text(record.read_text().replace("a.jpg", "b.jpg"))
    assert not is_complete(record, {})


def test_a_seal_is_the_same_before_and_after_json() -> None:
    content = sealed({"facts": {"b": (1, 2), "a": 0.1 + 0.2, "n": None}})
    assert has_its_seal(json.loads(json.dumps(content, indent=1)))


def test_the_manifest_of_another_run_is_refused_as_an_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = Path("runs/slices/of-something-0123456789ab")
    run.mkdir(parents=True)
    write_manifest(run / MANIFEST, run, "slices", "a" * 64, [], {})
    builds_on = {"slice": "slices/of-something-0123456789ab"}
    assert read_inputs(specification(builds_on=builds_on, inputs={"slice": "a" * 64}))["slice"].digest == "a" * 64
    with pytest.raises(ArtefactError, match=f"delete {run} and ask for the target again"):
        read_inputs(specification(builds_on=builds_on, inputs={"slice": "b" * 64}))


# Leftovers of killed jobs


def test_only_partial_files_of_a_killed_job_are_removed(tmp_path: Path) -> None:
    run, theirs = tmp_path / "run", tmp_path / "theirs"
    for path in (run / ".images.x/Style/1.jpg", run / "images/.1.jpg.x.jpg", theirs / ".hidden", run / "made"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (run / "assets").symlink_to(theirs)
    (run / ".manifest.lease.after-somebody").touch()
    _clear_leftovers(run / MANIFEST)
    left = sorted(str(path.relative_to(run)) for path in run.rglob("*"))
    assert left == [".manifest.lease.after-somebody", "assets", "images", "made"]
    assert (theirs / ".hidden").exists()


def test_a_table_removes_no_partial_file_of_another_table(tmp_path: Path) -> None:
    for name in (".table1.csv.x.csv", ".table1.json.x.json", ".table10.csv.x.csv", ".figure2.png.x.png"):
        (tmp_path / name).touch()
    _clear_leftovers(tmp_path / "table1.json")
    assert {path.name for path in tmp_path.iterdir()} == {".table10.csv.x.csv", ".figure2.png.x.png"}


def test_the_mark_of_a_dead_successor_expires_even_if_it_is_dated_in_the_future(tmp_path: Path) -> None:
    """The clock was set back by an hour after the mark was made."""
    path = tmp_path / "lease"
    dead = Owner.of_this_process()
    path.write_text(json.dumps(vars(dead) | {"pid": 2**22 + 1, "nonce": "dead"}))
    mark = tmp_path / ".lease.after-dead"
    mark.touch()
    later = time.time() + 3600
    os.utime(mark, (later, later))
    began = time.monotonic()
    with Lease(path, renewal=0.1, expiry=0.5).held():
        assert 0.4 < time.monotonic() - began < 10
        assert sorted(tmp_path.iterdir()) == [path]


# Full disks

FULL = """
import sys
from pathlib import Path
import pandas as pd
import torch
from safetensors.torch import save_file
from PIL import Image
from corelib.files.atomic import atomic_folder, atomic_write

def write(kind, path):
    if kind == "folder":
        with atomic_folder(path) as folder:
            (folder / "file").write_bytes(bytes(1 << 21))
    with atomic_write(path) as temporary:
        if kind == "torch":
            torch.save(torch.zeros(1 << 20), temporary)
        if kind == "safetensors":
            save_file({"x": torch.zeros(1 << 20)}, temporary)
        if kind == "parquet":
            pd.DataFrame({"x": torch.rand(1 << 20).numpy()}).to_parquet(temporary)
        if kind == "image":
            Image.effect_noise((2000, 2000), 90).save(temporary, format="PNG")
        if kind == "text":
            temporary.write_text("x" * (1 << 21))

for kind in ("folder", "torch", "safetensors", "parquet", "image", "text"):
    path = Path(sys.argv[1]) / kind
    try:
        write(kind, path)
    except OSError as error:
        print(kind, error.filename == str(path), error.strerror, flush=True)
print(*Path(sys.argv[1]).iterdir())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_on_a_full_disk_the_error_of_every_library_names_the_file_and_no_file_is_left(tmp_path: Path) -> None:
    mounted = f'mount -t tmpfs -o size=1m small {tmp_path} && exec {sys.executable} -c "$0" {tmp_path}'
    command = ["unshare", "--mount", "sh", "-c", mounted, FULL]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    kinds = ("folder", "torch", "safetensors", "parquet", "image", "text")
    assert done.stdout.splitlines() == [*(f"{kind} True No space left on device" for kind in kinds), ""], done.stderr


LOGS_TO = """
import sys
from corelib.runs.job import run_job
from types import SimpleNamespace
from pathlib import Path
run_job(SimpleNamespace(log=[sys.argv[1]], params=SimpleNamespace(specification="nowhere.json")), None, None)
"""


@pytest.mark.parametrize("log", ["/dev/full", "/proc/nothing/job.log"])
def test_a_job_that_cannot_write_its_log_prints_its_error(log: str) -> None:
    command = [sys.executable, "-c", LOGS_TO, log]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.count("Error: ") == 1 and "Traceback" not in done.stderr, done.stderr
    assert not earlier_log(Path(log)).exists()  # of a device, no second name is made


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device")
def test_a_lease_that_cannot_be_written_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    lease = Lease(path)
    path.touch()
    with pytest.raises(OSError, match="No space left on device") as raised:
        lease._sign(os.open("/dev/full", os.O_WRONLY), path)
    assert raised.value.filename == str(path)
    assert not path.exists()


# A sample of `make test-faults`


@pytest.mark.slow
def test_stages_that_are_killed_or_read_damaged_files_produce_the_same_bits(built: Checkout, tmp_path: Path) -> None:
    few = ["--kills", "12", "--write-kills", "2", "--damages", "2", "--kinds", "kills", "writes", "damage"]
    stages = ["--stages", "slices", "latents", "embeddings", "samples", "gathering", "predictions", "cells", "tables"]
    command = [
        sys.executable,
        "tests/faults",
        "--reference",
        str(built.folder),
        *few,
        *stages,
        "--scratch",
        str(tmp_path),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
