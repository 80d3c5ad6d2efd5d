"""Records: the bytes of their files, and the errors of their readers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import hand_made, records

from corelib.commands.verify import verify_results
from corelib.errors import ArtefactError
from corelib.files.json_files import write_json
from corelib.files.sealed_json import SealedRecord, bytes_match, sealed, write_record
from corelib.runs.layout import RESULTS, RUNS
from corelib.runs.lease_owner import Owner, owner_as_json, read_owner
from corelib.runs.manifest import ManifestRecord, read_manifest
from corelib.runs.provenance_record import read_provenance
from corelib.runs.specification import read_specification
from corelib.sampling.batch_record import BatchRecord, read_batch

MODEL = "unlearning/core-0123456789ab"
SPECIFICATION = records.specification("fid", "core", {"samples": "samples/core-0123456789ab"}, settings={"rate": 1e-05})
MANIFEST = ManifestRecord.sealed(
    stage="fid",
    digest=SPECIFICATION.digest,
    files={"a": "0"},
    facts={"b": [1, 2.5, None]},
    trained={MODEL: "1"},
    inputs={},
)
RECORDS: dict[str, tuple[SealedRecord, Callable[[Path], SealedRecord]]] = {
    "specification": (SPECIFICATION, read_specification),
    "manifest": (MANIFEST, read_manifest),
    "provenance record": (records.provenance(SPECIFICATION, MANIFEST), read_provenance),
    "record of a batch": (BatchRecord.sealed(images={"a.jpg": "0"}, flagged=["a.jpg"], trained={}), read_batch),
}


def test_the_file_of_a_record_has_its_fields_in_sorted_order_and_nothing_else(tmp_path: Path) -> None:
    """Every byte is compared, because other results contain seals of manifests and hashes of batch records."""
    write_record(tmp_path / "manifest.json", MANIFEST)
    assert (tmp_path / "manifest.json").read_text() == (
        "{\n"
        f' "digest": "{SPECIFICATION.digest}",\n'
        ' "facts": {\n  "b": [\n   1,\n   2.5,\n   null\n  ]\n },\n'
        ' "files": {\n  "a": "0"\n },\n'
        ' "inputs": {},\n'
        f' "seal": "{MANIFEST.seal}",\n'
        ' "stage": "fid",\n'
        ' "trained": {\n  "unlearning/core-0123456789ab": "1"\n }\n'
        "}\n"
    )
    assert SPECIFICATION.digest == "0f7f711488e8e35f695df7a7a30e23d8d2c894f905b117480932e7984a574d99"
    assert (SPECIFICATION.seal, MANIFEST.seal) == (
        "a916a8041ea66ec1d00b31650163d646a0e7b668c4d60c45a0b8ee784d61ebdb",
        "f1e9338ed318ceb23aab9a65d28a11a22381bad6afaefc59db02788462e0e810",
    )


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_is_read_as_it_was_written(kind: str, tmp_path: Path) -> None:
    written, reader = RECORDS[kind]
    path = tmp_path / "record.json"
    write_record(path, written)
    read = reader(path)
    assert read.content == written.content == json.loads(path.read_text())
    assert bytes_match(path, read)


@pytest.mark.parametrize("kind", RECORDS)
def test_a_key_that_is_missing_unknown_or_of_another_type_is_named(kind: str, tmp_path: Path) -> None:
    """Even if the seal is computed again."""
    written, reader = RECORDS[kind]
    path = tmp_path / "record.json"
    content = {key: value for key, value in written.content.items() if key != "seal"}
    for key in content:
        changes: list[tuple[dict[str, Any], str]] = [
            ({name: value for name, value in content.items() if name != key}, f"`{key}`: Field required"),
            ({**content, key: "x" if isinstance(content[key], int | float) else 0.5}, f"`{key}`: Input should"),
        ]
        for changed, reason in changes:
            write_json(path, sealed(changed))
            with pytest.raises(ArtefactError, match=f"record.json: not a {kind} .{reason}.*delete it") as caught:
                reader(path)
            assert "\n" not in str(caught.value)
    write_json(path, sealed({**content, "more\n": 1, "folder": "/"}))
    with pytest.raises(ArtefactError, match=f"not a {kind}"):
        reader(path)


def test_a_provenance_record_with_parts_of_two_runs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.provenance.json"
    whole = records.provenance(SPECIFICATION, MANIFEST)
    other = records.specification("fid", "other", settings={"rate": 1.0})
    for changed in (
        {"specification": other},
        {"specification": SPECIFICATION.model_copy(update={"threads": 2})},
        {"manifest": MANIFEST.model_copy(update={"facts": {}})},
    ):
        write_json(path, sealed(whole.model_copy(update=changed).content))
        with pytest.raises(ArtefactError, match="its specification and its manifest do not belong to one run"):
            read_provenance(path)


def test_a_specification_without_a_name_for_every_role_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "specification.json"
    write_json(path, sealed({**SPECIFICATION.content, "builds_on": {}}))
    with pytest.raises(ArtefactError, match=r"`inputs` and `builds_on` disagree: \['samples'\] against \[\]"):
        read_specification(path)


def test_an_incomplete_or_invalid_owner_is_ignored(tmp_path: Path) -> None:
    path, owner = tmp_path / "lease", Owner.of_this_process()
    path.write_text(owner_as_json(owner))
    assert read_owner(path) == owner
    content = json.loads(path.read_text())
    assert list(content) == ["host", "node", "pid", "namespace", "started", "job", "began", "nonce"]
    for key in content:
        path.write_text(json.dumps({name: value for name, value in content.items() if name != key}))
        assert read_owner(path) is None
    for change in ({"pid": -1}, {"pid": 2**40}, {"pid": "1"}, {"began": "yesterday"}, {"more": 1}):
        path.write_text(json.dumps({**content, **change}))
        assert read_owner(path) is None


def test_a_damaged_record_does_not_make_its_files_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is unknown which files the record listed."""
    monkeypatch.chdir(tmp_path)
    folder = RUNS / hand_made.write_study(RESULTS / "mini")["samples"]
    for name in ("batches/00000.json", "shards/0000-of-0002.json", "manifest.json"):
        path = folder / name
        content = path.read_text()
        path.write_text(content.replace('"trained"', '"trainee"'))
        faults = verify_results().faults
        assert any(fault.startswith(f"{path}: not a ") for fault in faults)
        assert not any("does not list it" in fault for fault in faults)
        path.write_text(content)
    assert verify_results().faults == []
