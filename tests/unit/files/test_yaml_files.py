"""Plain values of YAML: how they are read, and which are refused because readers disagree about them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from support.checkout import REPOSITORY

from corelib.files.yaml_files import UnreadableYaml, read_yaml


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some.yaml"


VALUES = {
    "0": 0, "10": 10, "-3": -3, "+5": 5, "0.5": 0.5, ".5": 0.5, "5.": 5.0, "-0.25": -0.25,
    "1e-5": 1e-5, "1.0e-3": 1e-3, "5e-6": 5e-6, "1E5": 1e5, "2e3": 2000.0, "0e0": 0.0,
    "true": True, "False": False, "null": None, "~": None, "": None, ".inf": math.inf, "-.inf": -math.inf,
    "Van_Gogh": "Van_Gogh", "0cc3c7bd": "0cc3c7bd", "1.2.3": "1.2.3", ".": ".", "2023_styles": "2023_styles",
    "none": "none", "yes sir": "yes sir", "nobody": "nobody", "offset": "offset", "1e": "1e", "0x": "0x",
    "'010'": "010", '"yes"': "yes", "'3:08'": "3:08", "'2001-01-01'": "2001-01-01", "'1_000'": "1_000", "'<<'": "<<",
}  # fmt: skip


@pytest.mark.parametrize(("written", "value"), VALUES.items(), ids=VALUES)
def test_a_value_on_which_all_readers_agree_is_read_as_they_do(file: Path, written: str, value: Any) -> None:
    file.write_text(f"a: {written}\n")
    found = read_yaml(file)["a"]
    assert (type(found), found) == (type(value), value)


NUMBER = "a decimal number, or quotes around it for text"
NO_ZEROS = "a number without leading zeros, or quotes around it for text"
NO_LINES = "a number without `_`, or quotes around it for text"
TRUTH = "`true` or `false`, or quotes around it for text"
TEXT = "quotes around it for text"
AMBIGUOUS = {
    **dict.fromkeys(("010", "00", "-007", "+010", "08", "01.5", "00.5", "01e5"), NO_ZEROS),
    **dict.fromkeys(("0x10", "0X1f", "-0x1_0", "0o17", "0O17", "0b1", "0b1_0", "+0b1"), NUMBER),
    **dict.fromkeys(("3:08", "1:30.5", "-1:30", "190:20:30", "16:9", "1_0:30"), NUMBER),
    **dict.fromkeys(("1_000", "2023023902_2", "1_", "0_7", "1_0.5", "1.5_0", ".5_0", "1_0e+5", "-1_0"), NO_LINES),
    **dict.fromkeys(("yes", "No", "ON", "off", "Off", "y", "N", "yEs"), TRUTH),
    **dict.fromkeys(("2001-01-01", "2001-1-1 10:00:00", "2001-12-14t21:59:43.10-05:00", "=", "<<"), TEXT),
}


@pytest.mark.parametrize(("written", "expected"), AMBIGUOUS.items(), ids=AMBIGUOUS)
def test_a_value_on_which_readers_disagree_is_refused(file: Path, written: str, expected: str) -> None:
    places = ["a: {}", "a: [1, {}]", "a:\n- {}", "{}"] + ["{}: 1"] * (written != "<<")
    for place in places:
        file.write_text(f"# a comment\n{place.format(written)}\n")
        with pytest.raises(UnreadableYaml) as caught:
            read_yaml(file)
        assert str(caught.value) == f"YAML readers disagree about what `{written}` means, expected {expected}"
        assert caught.value.line == 2 + place.count("\n")


@pytest.mark.parametrize("written", AMBIGUOUS)
def test_any_quoted_value_is_text(file: Path, written: str) -> None:
    for quoted in ("'{}'", '"{}"', "|-\n  {}", ">-\n  {}"):
        file.write_text(f"a: {quoted.format(written)}\n")
        assert read_yaml(file) == {"a": written}


def test_a_sections_own_keys_override_merged_ones_and_the_first_merged_section_overrides_the_next(
    file: Path,
) -> None:
    file.write_text("a: &a {p: 1, q: 2}\nb: &b {q: 3, r: 4}\nc: {r: 5, <<: [*a, *b]}\nd: {<<: *a, p: 6}\n")
    content = read_yaml(file)
    assert content["c"] == {"p": 1, "q": 2, "r": 5}
    assert content["d"] == {"p": 6, "q": 2}


@pytest.mark.parametrize("name", ["a", "a b", "a: 1", "[a, b]", "- a\n- b"])
def test_a_file_with_one_value_or_none_is_read(file: Path, name: str) -> None:
    file.write_text(f"--- # a comment\n{name}\n...\n")
    assert read_yaml(file) == {"a: 1": {"a": 1}, "[a, b]": ["a", "b"], "- a\n- b": ["a", "b"]}.get(name, name)
    file.write_text("# a comment alone\n")
    assert read_yaml(file) is None


SHIPPED = [*(REPOSITORY / "config").rglob("*.yaml"), *(REPOSITORY / "slurm").glob("*.yaml")]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_files_have_the_same_meaning_in_yaml_1_1(path: Path) -> None:
    import yaml

    assert read_yaml(path) == yaml.safe_load(path.read_text(encoding="utf-8"))
