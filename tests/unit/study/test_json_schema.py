"""The JSON schema of studies: it is that of the models, accepts every study here, and refuses misspelled ones."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from support.checkout import REPOSITORY

from corelib.errors import ConfigurationError
from corelib.files.docstrings import parse_docstring
from corelib.files.yaml_files import read_yaml
from corelib.study.json_schema import overlay_schema
from corelib.study.loading import load_study

FILE = REPOSITORY / "config/study.schema.json"
STUDIES = [REPOSITORY / "config/config.yaml", *sorted((REPOSITORY / "config/studies").glob("*.yaml"))]
OTHERS = sorted((REPOSITORY / "tests").rglob("study.yaml"))
VALIDATOR = Draft202012Validator(overlay_schema())


def test_the_committed_schema_is_that_of_the_models() -> None:
    assert json.loads(FILE.read_text()) == overlay_schema(), "run: python -m corelib schema > config/study.schema.json"
    Draft202012Validator.check_schema(overlay_schema())


@pytest.mark.parametrize("file", [*STUDIES, *OTHERS], ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_every_study_of_the_repository_is_valid(file: Path) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(read_yaml(file))] == []


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_shipped_study_names_the_schema_for_editors(file: Path) -> None:
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", file.read_text())
    assert named and (file.parent / named[1]).resolve() == FILE


VALID = [
    "base: mini",
    "world: {pretrained: false}",
    "methods: {core: null}",
    "methods: {light: {like: core, objective: {retain: {weight: 0.5}}}}",
    "methods: {core: {objective: {retain: null}, saliency: null, length: {Forget01: null, Forget06: {steps: 5}}}}",
    "methods: {core: {objective: {unlearn: {target: {kind: guided_model, eta: 1.0}, weight: {kind: min_snr}}}}}",
    "models: {mine: {title: Mine, weights: {Forget06: models/unet}}}",
    "tables: {table_brief: {rows: [core, {name: far, method: core, seeds: [0, 1]}], published: null}, table1: null}",
    "gate: null",
    "training: {seeds: [0, 1]}",
    "anchoring: {one_to_one: {Sky_Waves: Rose_Waves}}",
]
INVALID = [
    ("samplig: {batch: 3}", "samplig"),
    ("sampling: {bach: 3}", "bach"),
    ("sampling: {batch: 0}", "0"),
    ("sampling: {batch: 2.5}", "2.5"),
    ("sampling: {jpeg_quality: 101}", "101"),
    ("sampling: {batch: null}", "None"),
    ("sampling: null", "None"),
    ("tables: null", "None"),
    ("gate: never", "never"),
    ("training: {seeds: []}", "[]"),
    ("training: {precision: {gpu: fp16}}", "fp16"),
    ("methods: {core: {learning_rate: 0.0}}", "0.0"),
    ("methods: {core: {learning_rate: quick}}", "quick"),
    ("methods: {core: {objective: {unlearn: {target: {kind: guided}}}}}", "guided"),
    ("methods: {core: {objective: {unlearn: {target: {kind: gaussian_noise, eta: 1.0}}}}}", "gaussian_noise"),
    ("methods: {core: {anchors: {Forget01: one_to_two}}}", "one_to_two"),
    ("methods: {core: {like: [esd]}}", "esd"),
    ("methods: {my method: {like: core}}", "my method"),
    ("models: {mine: {wieghts: {}}}", "wieghts"),
    ("tables: {first: {rows: [core]}}", "first"),
    ("tables: {table1: {rows: [{name: far, methd: core}]}}", "methd"),
    ("figures: {picture: null}", "picture"),
    ("base: [mini]", "mini"),
    ("world: {kind: minature}", "minature"),
]


def parsed(text: str, folder: Path) -> Any:
    file = folder / "study.yaml"
    file.write_text(text)
    return read_yaml(file)


@pytest.mark.parametrize("text", VALID)
def test_an_overlay_may_contain_any_part_of_a_study(text: str, tmp_path: Path) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(parsed(text, tmp_path))] == []


@pytest.mark.parametrize(("text", "fault"), INVALID)
def test_a_wrong_study_is_refused_by_the_schema_and_by_the_workflow(text: str, fault: str, tmp_path: Path) -> None:
    errors = list(VALIDATOR.iter_errors(parsed(text, tmp_path)))
    assert errors and fault in " ".join(error.message for error in errors)
    folder = tmp_path / "config"
    (folder / "studies").mkdir(parents=True)
    for name in ("config.yaml", "published.csv"):
        (folder / name).symlink_to(REPOSITORY / "config" / name)
    (folder / "studies/wrong.yaml").write_text(text)
    with pytest.raises(ConfigurationError):
        load_study("wrong", folder)


def sections(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for part in schema.values():
            yield from sections(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from sections(part)


def test_no_section_requires_a_key_or_allows_unknown_ones() -> None:
    found = list(sections(overlay_schema()))
    assert len(found) > 40
    assert [section for section in found if "required" in section or not _is_closed(section)] == []


def _is_closed(section: dict[str, Any]) -> bool:
    """Whether a section has fixed keys only, or names that the user chooses with entries of a known type."""
    return section["additionalProperties"] is False or isinstance(section["additionalProperties"], dict)


def test_every_leaf_has_a_description() -> None:
    schema = overlay_schema()
    leaves = {
        f"{name}.{key}": leaf
        for name, section in {"Study": schema, **schema["$defs"]}.items()
        for key, leaf in section["properties"].items()
    }
    undescribed = [key for key, leaf in leaves.items() if not (leaf.keys() & {"description", "$ref", "const"})]
    assert undescribed == [], "add them to the section `Attributes:` of the model's docstring"
    assert leaves["Method.batch"]["description"] == "Batch size; `training.batch_counts` defines it."
    assert leaves["SampledImages.clip_sample"]["description"] == leaves["DDIMSampling.clip_sample"]["description"]


def test_docstrings_are_parsed_into_text_and_attributes() -> None:
    parsed = parse_docstring(
        """A record
        on two lines.

        More text.

        Attributes:
            first: what it is: "this",
                and this.
            second, third: both.

        Raises `Error` if it is wrong.

        Args:
            fourth: not an attribute.
        """
    )
    assert parsed.text == "A record on two lines. More text. Raises `Error` if it is wrong."
    assert parsed.attributes == {"first": 'what it is: "this", and this.', "second": "both.", "third": "both."}
    assert parse_docstring(None).text == "" and parse_docstring("One line.").attributes == {}
