"""Damaged, foreign and missing input files of a job, and non-finite losses.

If a job does not read the damaged file, or writes it again, it must produce the same bits. Otherwise its error must
name the file and the remedy in one sentence, and this remedy must lead to the same bits.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from attempts import AttemptEnd, Job, Moment, Place, attempt, in_a_process
from outcomes import CLEAR, SAME, UNCLEAR, WRONG, Bench, Outcome, sentence_of

from corelib.files.sealed_json import sealed
from corelib.runs.specification import digest_of

Damage = Callable[[Path, random.Random], None]


def flip_a_bit(path: Path, draws: random.Random) -> None:
    """Flip one bit of a file, in a copy, because the reference shares the file."""
    content = bytearray(path.read_bytes())
    content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
    _put(path, bytes(content))


def truncate(path: Path, draws: random.Random) -> None:
    """Truncate a file somewhere in the middle."""
    content = path.read_bytes()
    _put(path, content[: draws.randrange(1, len(content))])


def empty(path: Path, _: random.Random) -> None:
    """Empty a file."""
    _put(path, b"")


def remove(path: Path, _: random.Random) -> None:
    """Remove a file."""
    path.unlink()


def replace_by_a_folder(path: Path, _: random.Random) -> None:
    """Replace a file by a folder of the same name."""
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Damage] = {
    "flipped bit": flip_a_bit,
    "truncated file": truncate,
    "empty file": empty,
    "missing file": remove,
    "folder in place of a file": replace_by_a_folder,
}


def _put(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def files_to_damage(bench: Bench, job: Job) -> list[Path]:
    """Input files of a job: its specification, and one file of each kind from each run that it builds on."""
    runs = {below.specification.parent for below in bench.reference.built_on(job)}
    if job.label == "gathering":
        runs.add(job.specification.parent)
    found = {("", "specification.json"): job.specification}
    for run in sorted(runs):
        for path in sorted((bench.reference.folder / run).rglob("*")):
            if path.is_file() and not path.is_symlink():
                name = path.relative_to(bench.reference.folder / run)
                is_image = path.suffix == ".jpg" or name.parts[0] == "batches"
                kind = f"{name.parts[0]}/*{path.suffix}" if is_image or name.parts[0] == "shards" else str(name)
                found.setdefault((str(run), kind), path.relative_to(bench.reference.folder))
    made = {job.manifest, job.manifest.with_suffix(".provenance.json")} if job.label == "gathering" else set()
    return [path for path in found.values() if path not in made]


def damage_a_file(bench: Bench, job: Job, name: Path, kind: str, seed: int) -> Outcome:
    """Damage one file that a job may read, run the job, and follow the advice in its error."""
    draws = random.Random(f"damage {seed} {job.label} {name.name} {kind}")
    with bench.place(job) as place:
        DAMAGES[kind](place.folder / name, draws)
        changed = _content(place.folder / name)
        ended = attempt(job, place)
        is_unchanged = _content(place.folder / name) == changed
        return _judge(bench, job, place, ended, kind, name if is_unchanged else None)


def damage_a_state(bench: Bench, job: Job, kind: str, seed: int) -> Outcome:
    """Kill a training, damage its checkpoint, and let it continue."""
    draws = random.Random(f"state {seed} {job.label} {kind}")
    seconds = bench.undisturbed[job.manifest].seconds
    with bench.place(job) as place:
        path = place.folder / job.specification.with_name("checkpoint.pt")
        for share in (0.6, 0.5, 0.4, 0.7, 0.3):
            if attempt(job, place, Moment(share * seconds)).killed and path.exists():
                break
        if not path.exists():
            return Outcome(job.label, f"state: {kind}", UNCLEAR, detail="the job was killed before it saved a state")
        if kind in DAMAGES:
            DAMAGES[kind](path, draws)
        else:
            in_a_process(lambda: _save_another(path, kind))
        return _judge(bench, job, place, attempt(job, place), f"state: {kind}")


STATES = ["foreign", "other shapes", "one number for each tensor", "another format"]


def _save_another(path: Path, kind: str) -> None:
    content = torch.load(path, weights_only=True)
    state = content["state"]
    if kind == "foreign":
        content["owner"] = "f" * 64
    elif kind == "other shapes":
        content["state"] = _mapped(state, lambda tensor: torch.zeros((*tensor.shape, 2)))
    elif kind == "one number for each tensor":
        content["state"] = _mapped(state, lambda tensor: torch.zeros(()))
    else:
        content["state"] = {"epoch": 3, "weights": state}
    torch.save(content, path)


def _mapped(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return change(value) if value.dim() else value
    if isinstance(value, dict):
        return {key: _mapped(entry, change) for key, entry in value.items()}
    return [_mapped(entry, change) for entry in value] if isinstance(value, list) else value


def make_loss_non_finite(bench: Bench, job: Job) -> Outcome:
    """Train a part of the world with a learning rate at which its loss becomes non-finite; the job must fail."""
    with bench.place(job) as place:
        path = place.folder / job.specification
        content = json.loads(path.read_text())
        settings = content["settings"]
        part = next(settings[name] for name in ("autoencoder", "denoiser", "classifier") if name in settings)
        part["training"]["learning_rate"] = 1e30
        content["digest"] = digest_of(content)
        path.write_text(json.dumps(sealed(content)))
        ended = attempt(job, place)
        sentence = sentence_of(place) or ""
        if ended.status == 0 or "expected a finite number" not in sentence:
            return Outcome(job.label, "not a number", UNCLEAR, detail=place.log[-600:])
        return Outcome(job.label, "not a number", CLEAR)


def _judge(
    bench: Bench, job: Job, place: Place, ended: AttemptEnd, kind: str, still_damaged: Path | None = None
) -> Outcome:
    outcome = SAME
    for _ in range(3):
        if ended.status == 0:
            break
        sentence = sentence_of(place)
        if sentence is None or not re.search(r"\S/\S", sentence):
            return Outcome(
                job.label, kind, UNCLEAR, detail=f"{still_damaged}: {place.log[-900:]}{place.terminal[-900:]}"
            )
        if "delete" not in sentence and "ask for the target again" not in sentence:
            return Outcome(job.label, kind, UNCLEAR, detail=f"the error does not say what to do: {sentence}")
        cleaned = [f"runs/{name}" for name in re.findall(r"corelib clean (\S+) --delete", sentence)]
        for named in [*cleaned, *re.findall(r"delete (\S+?)[,;.]?(?= |$)", sentence)]:
            target = place.folder / (named if "/" in named else sentence.partition(":")[0])
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
        still_damaged = None
        outcome = CLEAR
        ended = request(place, job)
    else:
        return Outcome(job.label, kind, UNCLEAR, detail=f"after its advice was followed: {sentence_of(place)}")
    expected = bench.undisturbed[job.manifest].listing
    found = place.listing()
    for name, sha256 in expected.items():
        if found.get(name) != sha256 and name != str(still_damaged):
            return Outcome(job.label, kind, WRONG, detail=f"{name} differs after damage to {still_damaged}")
    return Outcome(job.label, kind, outcome)


def request(place: Place, job: Job) -> AttemptEnd:
    """Request a job's manifest as Snakemake does, after the missing manifests that the job builds on."""
    for below in [*place.reference.built_on(job), *place.reference.shards_of(job)]:
        place.write_specification(below)
        if not (place.folder / below.manifest).is_file():
            for further in place.reference.built_on(below):
                place.copy_run(further)
            if (ended := request(place, below)).status != 0:
                return ended
    place.write_specification(job)
    return attempt(job, place)


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
