"""`verify` finds flipped bits in every kind of file below `runs/` and `results/`, and missing or additional files.

The kinds are compared with the files of a built study: a file that matches no pattern makes the test fail, and so
does a pattern that matches no file.
"""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

import pytest
from support import hand_made
from support.checkout import Checkout

from corelib.files import hashing
from corelib.files.json_files import read_json, write_json
from corelib.files.sealed_json import has_its_seal, sealed
from corelib.maintenance import verification
from corelib.maintenance.verification import verify_results
from corelib.runs import manifest
from corelib.runs.layout import MANIFEST, RESULTS, RUNS, SPECIFICATION
from corelib.runs.lease_owner import Owner, owner_as_json
from corelib.sampling import collection

RUN = r"runs/{}/[a-z0-9_-]+-[0-9a-f]{{12}}/"
TRAINED_STAGES = (
    "images", "autoencoder", "pipeline", "classifier", "slices", "latents", "embeddings", "unlearning", "samples",
    "predictions", "reference", "fid", "cells",
)  # fmt: skip
"""The stages of a study that trains its own miniature world."""

FILES_OF_STAGES = {
    "images": [r"images/.+\.jpg"],
    "autoencoder": [r"vae/config\.json", r"vae/\w+\.safetensors"],
    "pipeline": [
        r"pipeline/model_index\.json",
        r"pipeline/scheduler/scheduler_config\.json",
        *(rf"pipeline/{part}/config\.json" for part in ("text_encoder", "unet", "vae")),
        *(rf"pipeline/{part}/\w+\.safetensors" for part in ("text_encoder", "unet", "vae")),
        *(rf"pipeline/tokenizer/{name}" for name in (r"merges\.txt", r"\w+\.json")),
    ],
    "classifier": [r"classifier\.pth"],
    "slices": [r"slice\.json"],
    "latents": [r"images\.json", r"moments\.safetensors"],
    "embeddings": [r"prompts\.json", r"embeddings\.safetensors"],
    "unlearning": [r"delta\.safetensors", r"training\.parquet"],
    "samples": [
        r"images/\w+\.jpg", r"batches/\d+\.json", r"shards/\d+-of-\d+\.json", r"shards/\d+-of-\d+\.provenance\.json",
    ],
    "predictions": [r"predictions\.parquet"],
    "reference": [r"features\.safetensors"],
    "fid": [],
    "cells": [r"cells\.json", r"predictions\.parquet"],
}  # fmt: skip
PRODUCTS = {
    "table": [
        "csv",
        "md",
        "tex",
        "cells.csv",
        "pairs.csv",
        "styles.csv",
        "confusion.csv",
        "provenance.csv",
        "json",
        "provenance.json",
    ],
    "figure": ["png", "json", "provenance.json"],
}

KINDS = [
    *(RUN.format(stage) + name for stage in TRAINED_STAGES for name in FILES_OF_STAGES[stage]),
    *(
        RUN.format(stage) + name
        for stage in TRAINED_STAGES
        for name in (r"specification\.json", r"manifest\.json", r"manifest\.provenance\.json")
    ),
    *(RUN.format(f"{kind}s") + r"specification\.json" for kind in PRODUCTS),
    *(rf"results/tiny/{kind}\d\.{re.escape(ending)}" for kind, endings in PRODUCTS.items() for ending in endings),
]
"""The pattern of the path of each kind of file; no file has two kinds."""


@pytest.fixture
def kinds(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Path]]:
    """The files of a copy of a built study, by kind; a file is hashed again only after it has changed."""
    monkeypatch.chdir(checkout.folder)
    known: dict[tuple[object, ...], str] = {}
    compute_hash = hashing.sha256_of_path

    def cached_hash(path: Path) -> str:
        if not path.is_file():
            return compute_hash(path)
        status = path.stat()
        state = (path, status.st_ino, status.st_size, status.st_mtime_ns)
        if state not in known:
            known[state] = compute_hash(path)
        return known[state]

    for module in (hashing, manifest, collection, verification):
        monkeypatch.setattr(module, "sha256_of_path", cached_hash)
    found: dict[str, list[Path]] = {}
    for path in sorted([*Path("runs").rglob("*"), *Path("results").rglob("*")]):
        if path.is_file():
            (kind,) = [kind for kind in KINDS if re.fullmatch(kind, str(path))] or [f"no kind: {path}"]
            found.setdefault(kind, []).append(path)
    return found


def faults_that_name(path: Path) -> list[str]:
    """The faults in which `verify` names a file or its run."""
    run = "/".join(path.parts[:3])
    return [fault for fault in verify_results().faults if run in fault]


def test_every_file_of_a_built_study_belongs_to_a_kind_and_every_kind_has_a_file(kinds: dict[str, list[Path]]) -> None:
    assert sorted(kinds) == sorted(KINDS)
    assert verify_results().faults == []


@pytest.mark.parametrize("flips", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_no_flipped_bit_in_any_kind_of_file_is_missed(flips: int, kinds: dict[str, list[Path]]) -> None:
    missed = []
    for kind, files in kinds.items():
        draws = random.Random(kind)
        for _ in range(flips):
            path = draws.choice(files)
            content = path.read_bytes()
            at, bit = draws.randrange(len(content)), draws.randrange(8)
            path.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
            if not faults_that_name(path):
                missed.append(f"{path}: bit {bit} of byte {at}")
            path.write_bytes(content)
        assert verify_results().faults == []
    assert missed == []


def test_a_missing_empty_or_replaced_file_of_any_kind_is_named(kinds: dict[str, list[Path]]) -> None:
    missed = []
    for files in kinds.values():
        path = files[len(files) // 2]
        content = path.read_bytes()
        others = [other for other in files if other.read_bytes() != content]
        path.unlink()
        if not faults_that_name(path):
            missed.append(f"{path}: missing")
        path.touch()
        if not faults_that_name(path):
            missed.append(f"{path}: empty")
        for other in random.Random(str(path)).sample(others, min(3, len(others))):
            path.write_bytes(other.read_bytes())
            if not faults_that_name(path):
                missed.append(f"{path}: {other} in its place")
        path.write_bytes(content)
        assert verify_results().faults == []
    assert missed == []


# A study written by hand


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The names of the runs of a study in a separate working directory, by stage."""
    monkeypatch.chdir(tmp_path)
    found = hand_made.write_study(RESULTS / "mini")
    hand_made.write_product(RESULTS / "mini", "gate", cells=found["cells"])
    hand_made.write_product(RESULTS, "table1", core=found["cells"])
    assert verify_results().faults == []
    return found


def test_flipped_bits_of_gates_and_of_the_papers_own_products_are_not_missed(runs: dict[str, str]) -> None:
    files = sorted(path for path in [*RESULTS.rglob("*"), *RUNS.rglob("*")] if path.is_file())
    draws = random.Random(0)
    for path in files:
        content = path.read_bytes()
        for _ in range(12):
            at, bit = draws.randrange(len(content)), draws.randrange(8)
            path.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
            assert faults_that_name(path), f"{path}: bit {bit} of byte {at}"
        path.write_bytes(content)
    assert verify_results().faults == []


def test_a_number_with_another_spelling_is_noticed(runs: dict[str, str]) -> None:
    """One bit may change the spelling but not the value, and the seal covers values."""
    path = RUNS / runs["cells"] / MANIFEST
    write_json(path, sealed({**read_json(path), "facts": {"rate": 1e-05, "sum": 0.1 + 0.2}}))
    text = path.read_text()
    for old, new in (("1e-05", "1E-05"), ("0.30000000000000004", "0.30000000000000005")):
        path.write_text(text.replace(old, new))
        assert has_its_seal(read_json(path))
        assert f"{path}: its bytes have changed since it was written" in " ".join(verify_results().faults)


SUPERFLUOUS = {
    "samples/images/5.jpg": r"images: its sha256 is",
    "samples/batches/00009.json": r"batches/00009\.json: .+/shards does not list it",
    "samples/shards/more.txt": r"shards/more\.txt: .+ does not list it",
    "cells/more.csv": r"more\.csv: .+/manifest\.json does not list it, expected no such file; move it",
    "tables/more.csv": r"more\.csv: .+/specification\.json does not list it",
}


@pytest.mark.parametrize("name", SUPERFLUOUS)
def test_a_superfluous_file_in_the_folder_of_a_run_is_named(name: str, runs: dict[str, str]) -> None:
    stage, _, file = name.partition("/")
    folder = next((RUNS / stage).iterdir())
    (folder / file).write_text("{}")
    assert any(re.search(SUPERFLUOUS[name], fault) for fault in verify_results().faults)


@pytest.mark.parametrize("name", ["table9.csv", "table1.json.csv", "table1.old", "figure3.png", "gate.tex"])
def test_an_unlisted_file_under_the_name_of_a_product_is_named(name: str, runs: dict[str, str]) -> None:
    (RESULTS / "mini" / name).write_text("numbers")
    (fault,) = verify_results().faults
    assert name in fault and ("does not list it" in fault or "missing, expected the manifest of" in fault)


def test_a_table_without_its_manifest_is_named_with_its_files(runs: dict[str, str]) -> None:
    (RESULTS / "mini/table1.json").unlink()
    (fault,) = verify_results().faults
    assert fault.startswith("results/mini/table1.json: missing, expected the manifest of table1.cells.csv, table1.csv")


def test_unfinished_and_hidden_files_are_no_faults_and_unrelated_files_are_listed(runs: dict[str, str]) -> None:
    folder = RUNS / runs["unlearning"]
    for name in ("checkpoint.pt", "manifest.attempts.json", "manifest.lease", ".delta.x.txt"):
        (folder / name).touch()
    for name in (".table1.csv.x.csv", "table2.lease", "table2.attempts.json", "notes.txt"):
        (RESULTS / "mini" / name).touch()
    (RUNS / "backup/important").mkdir(parents=True)
    hand_made.plan_run("unlearning", "begun")
    found = verify_results()
    assert found.faults == []
    assert found.others == [RUNS / "backup/important", RESULTS / "mini/notes.txt"]
    assert str(found) == "5 complete runs and 4 products, 0 faults; 1 run is unfinished."


def test_a_completed_run_without_its_manifest_is_named(runs: dict[str, str]) -> None:
    path = RUNS / runs["cells"] / MANIFEST
    path.unlink()
    (fault,) = verify_results().faults
    assert fault.startswith(f"{path}: missing, but manifest.provenance.json records that the run was completed")
    path.with_suffix(".lease").write_text(owner_as_json(Owner.of_this_process()))
    assert verify_results().faults == []  # an active job writes it again


def test_a_shard_that_is_missing_with_its_record_is_noticed(runs: dict[str, str]) -> None:
    shards = RUNS / runs["samples"] / "shards"
    for path in shards.glob("0001-of-0002.*"):
        path.unlink()
    assert f"{shards}: the manifest of a shard is missing" in " ".join(verify_results().faults)


def test_an_input_whose_name_does_not_match_its_digest_is_noticed(runs: dict[str, str]) -> None:
    """Even if the seal is computed again."""
    path = RUNS / runs["cells"] / SPECIFICATION
    content = read_json(path)
    content["builds_on"]["predictions"] = "predictions/core-forget01-0123456789ab"
    write_json(path, sealed(content))
    (fault,) = verify_results().faults
    assert fault.startswith(f"{path}: it names predictions/core-forget01-0123456789ab as its predictions, expected")


def test_tables_made_from_a_damaged_run_or_another_build_of_a_model_are_named(runs: dict[str, str]) -> None:
    (RUNS / runs["predictions"] / "made.txt").write_text("damaged")
    found = verify_results()
    assert len(found.faults) == 1
    run = f"runs that have faults: {RUNS / runs['predictions']}."
    assert found.affected == [f"results/mini/{name} was made from {run}" for name in ("gate", "table1")] + [
        f"results/table1 was made from {run}"
    ]
    model = RUNS / runs["unlearning"]
    (model / "made.txt").write_text("trained again")
    hand_made.write_records(model / MANIFEST, model, runs["unlearning"], ["made.txt"], {})
    faults = verify_results().faults
    message = f"it was made with another build of the model {model} than the present one."
    assert f"results/mini/table1.json: table1: {message}" in faults and f"{RUNS / runs['samples']}: {message}" in faults


def test_a_table_made_from_two_builds_of_a_model_is_noticed(runs: dict[str, str]) -> None:
    """Its cells were rebuilt elsewhere, from another build of a model that is missing here."""
    cells = RUNS / runs["cells"]
    shutil.rmtree(RUNS / runs["unlearning"])
    hand_made.write_records(cells / MANIFEST, cells, runs["cells"], ["made.txt"], {runs["unlearning"]: "another"})
    message = f"it was made with another build of the model {RUNS / runs['unlearning']} than its core, {cells}."
    assert f"results/mini/table1.json: table1: {message}" in verify_results().faults


def test_the_manifest_of_another_product_is_noticed(runs: dict[str, str]) -> None:
    hand_made.write_product(RESULTS / "mini", "table2", core=runs["cells"])
    for ending in ("json", "provenance.json"):
        shutil.copy(RESULTS / f"mini/table2.{ending}", RESULTS / f"mini/table1.{ending}")
    assert "results/mini/table1.json: it is the manifest of table2, expected that of table1." in verify_results().faults


def test_a_manifest_that_leads_out_of_its_folder_is_reported_in_one_sentence(runs: dict[str, str]) -> None:
    for path, stage in ((RESULTS / "mini/figure2.json", "figures"), (RUNS / runs["cells"] / MANIFEST, "cells")):
        content = read_json(path)
        assert content["stage"] == stage
        write_json(path, sealed({**content, "files": {"../../../secret": "0" * 64, "a\0b": "0" * 64}}))
    assert sum("leads out of its folder" in fault for fault in verify_results().faults) == 2
