"""Keys beside the empty section to which they belong: the error says which of them to indent."""

from __future__ import annotations

import pytest
from support.checkout import REPOSITORY

from corelib.errors import ConfigurationError
from corelib.study.loading import load_study

CONFIGURATION = REPOSITORY / "config"


def error_for(text: str) -> str:
    """The error for a study of this text, without the name of its file."""
    with pytest.raises(ConfigurationError) as caught:
        load_study("mine", CONFIGURATION, text)
    return str(caught.value).removeprefix(f"{CONFIGURATION}/studies/mine.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "tables:\n  table1:\n  rows: [original, core]\n",
            "tables.rows is ['original', 'core'], expected a section of keys; indent `rows` below `table1`",
        ),
        (
            "methods:\n  core:\n  learning_rate: 1e-5\n  batch: 2\n",
            "methods.learning_rate is 1e-05, expected a section of keys; indent `learning_rate`, `batch` below `core`",
        ),
        (
            "methods:\n  core:\n    length:\n      Forget01:\n      epochs: 5\n",
            "methods.core.length.epochs is 5, expected a section of keys; indent `epochs` below `Forget01`",
        ),
        (
            "tasks:\n  Sky:\n  forget: [Sky_Dots]\n",
            "tasks.Sky is null, expected a section of keys; indent `forget` below `Sky`",
        ),
        ("training:\nseeds: [1]\n", "seeds is not a known key; indent `seeds` below `training`"),
        ("tables:\ntable1: {rows: [core]}\n", "table1 is not a known key; indent `table1` below `tables`"),
        (
            "prompts:\n  names:\n  Sky_Dots: sky\n",
            "prompts.Sky_Dots is not a known key; indent `Sky_Dots` below `names`",
        ),
        (
            "world:\n  autoencoder:\n  channels: [3]\n",
            "world.channels is not a known key; indent `channels` below `autoencoder`",
        ),
    ],
)
def test_a_key_beside_the_empty_section_of_which_it_is_a_part_is_to_be_indented(text: str, message: str) -> None:
    assert error_for(f"base: mini\n{text}") == f": {message}, which is empty."


@pytest.mark.parametrize(
    "text",
    [
        "methods: {esd: null, core: 5}",
        "methods: {core: {length: {Forget01: null, Forget06: 5}}}",
        "methods: {core: {anchors: {Forget01: null, Forget06: one_to_on}}}",
        "methods: null\nanchorings: {}",
        "tables: {rows: [core], table1: null}",
        "tables: {table7: null}",
        "tables: {table7: null, table1: {rows: [core]}}",
    ],
)
def test_no_indentation_is_suggested_for_a_key_that_is_at_its_place(text: str) -> None:
    assert "indent" not in error_for(f"base: mini\n{text}")


def test_the_advice_is_about_the_file_that_lacks_the_indentation(tmp_path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "config.yaml").write_text((CONFIGURATION / "config.yaml").read_text())
    (tmp_path / "studies/middle.yaml").write_text("tables:\n  table1:\n  rows: [core]\n")
    (tmp_path / "studies/mine.yaml").write_text("base: middle\ntables: {table1: {rows: [core]}}\n")
    with pytest.raises(ConfigurationError) as caught:
        load_study("mine", tmp_path)
    end = f"indent `rows` below `table1`, which is empty (set in {tmp_path / 'studies/middle.yaml'})."
    assert str(caught.value).endswith(end)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base mine\nmethods: {}\n", ", line 2, or the one before it: not readable as YAML: mapping values"),
        ("base: mini\nmethods:\n  core\n    batch: 4\n", ", line 4, or the one before it: not readable as YAML"),
        ("base: mini\nprompts: {}\nfid: a: b\n", ", line 3: not readable as YAML: mapping values"),
        ("base: a: b\n", ", line 1: not readable as YAML: mapping values"),
        ("base: mini\ntraining\n\nmethods: {}\n", ", line 2: not readable as YAML: while scanning a simple key, could"),
        ("base: mini\nfid: 'a\nb: c\n", "while scanning a quoted scalar that begins in line 2"),
        ("base: mini\nfid: {a: {b: 4}\nb: {}\n", "while parsing a flow mapping that begins in line 2, expected ',' or"),
    ],
)
def test_the_error_for_broken_syntax_names_the_line_to_change(text: str, message: str) -> None:
    assert message in error_for(text)
