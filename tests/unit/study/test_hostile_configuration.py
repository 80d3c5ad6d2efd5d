"""Fuzzed configurations: each is a study that can be planned, or an error of one sentence that names its file."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.checkout import REPOSITORY
from support.timing import time_limit

from corelib.errors import ConfigurationError
from corelib.files.json_files import read_json, write_json
from corelib.files.yaml_files import MAX_YAML_BYTES, UnreadableYaml, read_yaml
from corelib.sampling.grid import image_name
from corelib.study import overlays
from corelib.study.consistency import MAX_IMAGES
from corelib.study.loading import load_study
from corelib.study.plan import Plan
from corelib.study.published import load_published
from corelib.study.schema import Study
from corelib.study.shipped_world import load_shipped
from corelib.study.targets import product_at

CONFIGURATION = REPOSITORY / "config"

few = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
many = settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
few_files = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
many_files = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


def planned_or_refused(name: str, folder: Path) -> Study | str:
    """The study, after all its products are planned, or the error with which it is refused."""
    with time_limit():
        try:
            study = load_study(name, folder)
            shipped = load_shipped(CONFIGURATION) if study.takes_shipped_world else None
            Plan(name, study, load_published(CONFIGURATION), shipped).products()
            return study
        except ConfigurationError as error:
            message = str(error)
            assert message.isprintable(), message
            assert len(message) < 4000
            return message


# Values


STRANGE = [
    "", " ", "null", "nan", "../../etc", "/etc/passwd", "a/b", "a\nb", "a\x00b", "\x1b[31m", "\u202e", "\ud800", "Ａ",
    "con", "-rf", "{object}", "{style}", "{0}", "{object.__class__}{style}", "%s", "$(true)", "all", "rest", "in_order",
    "first_retain", "original", "results", ".", "..", "tasks.Forget01", "é" * 300, "x" * 5000,
]  # fmt: skip
NUMBERS = [-1, 0, 1, 2, 3, 7, 10**9, 2**31, 2**63, 10**30, -0.0, 0.5, 1e-320, 1e308, float("inf"), float("nan")]

Change = tuple[tuple[str | int, ...], str, Any]

scalars = st.one_of(
    st.none(), st.booleans(), st.sampled_from(NUMBERS), st.sampled_from(STRANGE), st.integers(), st.floats(), st.text()
)
values = st.recursive(
    scalars, lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=8), below, max_size=3)
)


def merged_study(name: str) -> dict[str, Any]:
    return overlays.merge_study(name, CONFIGURATION, ())[0]


WHOLE = {name: merged_study(name) for name in ("paper", "tiny", "mini")}


def places_in(value: Any, place: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every section, list and leaf."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for name, part in below for found in places_in(part, (*place, name)))]


PLACES = {name: [place for place in places_in(content) if place] for name, content in WHOLE.items()}


def value_at(content: Any, place: tuple[str | int, ...]) -> Any:
    for name in place:
        content = content[name]
    return content


@st.composite
def changes(draw: st.DrawFn) -> tuple[str, list[Change]]:
    """A shipped study, and changes to some of its places."""
    name = draw(st.sampled_from(sorted(WHOLE)))
    place = st.sampled_from(PLACES[name])
    kinds: st.SearchStrategy[Change] = st.one_of(
        st.tuples(place, st.just("replace"), values),
        st.tuples(place, st.just("replace"), st.sampled_from(NUMBERS)),
        st.tuples(place, st.just("swap"), place),
        st.tuples(place, st.just("remove"), st.none()),
        st.tuples(place, st.just("rename"), st.sampled_from(STRANGE) | st.text(max_size=8)),
        st.tuples(place, st.just("add"), values),
    )
    return name, draw(st.lists(kinds, min_size=1, max_size=3))


def apply_changes(name: str, made: list[Change]) -> dict[str, Any]:
    content = copy.deepcopy(WHOLE[name])
    for place, kind, value in made:
        try:
            section, last = value_at(content, place[:-1]), place[-1]
            section[last]
        except (KeyError, IndexError, TypeError):  # removed by an earlier change
            continue
        if kind == "replace":
            section[last] = value
        elif kind == "swap":
            section[last] = copy.deepcopy(value_at(WHOLE[name], value))
        elif kind == "remove":
            del section[last]
        elif kind == "rename" and isinstance(section, dict):
            section[value] = section.pop(last)
        elif kind == "add" and isinstance(section[last], list):
            section[last].append(value)
        elif kind == "add" and isinstance(section[last], dict):
            section[last]["added"] = value
    return content


def check(name: str, made: list[Change]) -> None:
    content = apply_changes(name, made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlays, "read_yaml", lambda _: copy.deepcopy(content))
        answer = planned_or_refused("paper", CONFIGURATION)
    if isinstance(answer, str):
        assert answer.startswith(str(CONFIGURATION)), answer


@few
@given(changes())
def test_a_study_with_wrong_leaves_is_planned_or_refused_in_one_sentence(made: tuple[str, list[Change]]) -> None:
    check(*made)


@pytest.mark.slow
@many
@given(changes())
def test_thousands_of_studies_with_wrong_leaves_are_planned_or_refused(made: tuple[str, list[Change]]) -> None:
    check(*made)


@pytest.mark.parametrize(
    ("leaf", "value"), [("length", 1e308), ("length", 1e-320), ("learning_rate", 1e-320), ("learning_rate", 1e308)]
)
def test_a_scale_with_impossible_lengths_or_learning_rates_is_refused(leaf: str, value: float) -> None:
    content = copy.deepcopy(WHOLE["mini"])
    content["methods"]["core"]["learning_rate"] = 10.0
    content["training"]["scale"][leaf] = value
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlays, "read_yaml", lambda _: content)
        answer = planned_or_refused("paper", CONFIGURATION)
    assert isinstance(answer, str)
    assert f"training.scale.{leaf} is {value}, expected a number for which the scaled methods." in answer


SEEDS = f"tasks: {{Forget01: {{evaluation: {{seeds: {list(range(30_000))}}}}}}}"
SHORT = f"evaluation: {{seeds: &seeds {list(range(800))}}}"
TASKS = f"tasks: {{Forget01: {{{SHORT}}}, Forget06: {{evaluation: {{seeds: *seeds}}}}}}"
IMAGES = f"world: {{images_per_cell: 9000}}\ntraining: {{images: {list(range(1, 9000))}}}"
STYLES = f"world: {{styles: [{', '.join(f's{number}' for number in range(2_000))}]}}"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (SEEDS, "images; the maximum is 100,000"),
        (TASKS, "images; the maximum is 100,000"),
        (IMAGES, "generated images; the maximum is 100,000"),
        (STYLES, "at most 1000 of them"),
    ],
    ids=["seeds", "tasks", "images", "styles"],
)
def test_a_short_file_cannot_request_more_images_than_the_maximum(folder: Path, content: str, expected: str) -> None:
    with time_limit(10):
        answer = answer_to(folder, f"base: mini\n{content}\n".encode())
    assert isinstance(answer, str)
    assert expected in answer


def test_a_specification_of_the_maximum_number_of_images_is_read(tmp_path: Path) -> None:
    """With the longest file names that a file system allows."""
    style, object_ = "s" * 125, "o" * 110
    seeds = range(10**6, 10**6 + MAX_IMAGES)
    assert len(image_name(style, object_, seeds[-1])) <= 255 < len(image_name(style + "s" * 10, object_, seeds[-1]))
    grid = [(style, object_, seed) for seed in seeds]
    write_json(tmp_path / "specification.json", {"settings": {"grid": grid}})
    assert len(read_json(tmp_path / "specification.json")["settings"]["grid"]) == MAX_IMAGES


# Files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration folder to which the tests add a study."""
    copied = tmp_path_factory.mktemp("configuration") / "config"
    shutil.copytree(CONFIGURATION, copied, ignore=shutil.ignore_patterns("pipeline", "*.pth"))
    return copied


def answer_to(folder: Path, content: bytes) -> Study | str:
    """The study of this content, or the error with which it is refused."""
    file = folder / "studies/strange.yaml"
    file.write_bytes(content)
    answer = planned_or_refused("strange", folder)
    if isinstance(answer, str):
        assert answer.startswith(str(folder)), answer
    return answer


OVERLAY = (CONFIGURATION / "studies/mini-released.yaml").read_bytes()
MARKS = [
    b"&a ", b"*a", b"<<: *a", b"!!int ", b"!!float ", b"!!binary ", b"!!set ", b"!!timestamp ", b"!!python/name:os ",
    b"[", b"]", b"{", b"}", b": ", b"- ", b"? ", b"| ", b"> ", b"'", b'"', b"#", b"%YAML 1.2\n", b"---\n", b"...",
    b"\t", b"\x00", b"\xff", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"1:1:1:1", b"0x", b"1_", b".inf", b".nan", b"~",
    b"2001-02-30", b"\n", b"  ", b'"\\ud800"',
]  # fmt: skip

edits = st.lists(
    st.tuples(st.integers(0, len(OVERLAY)), st.integers(0, 12), st.binary(max_size=6) | st.sampled_from(MARKS)),
    min_size=1,
    max_size=6,
)


def apply_edits(content: bytes, made: list[tuple[int, int, bytes]]) -> bytes:
    """Bytes with some of them replaced by others."""
    for start, length, new in made:
        content = content[:start] + new + content[start + length :]
    return content


@few_files
@given(edits)
def test_a_damaged_file_is_planned_or_refused_in_one_sentence(folder: Path, made: list[tuple[int, int, bytes]]) -> None:
    answer_to(folder, apply_edits(OVERLAY, made))


@pytest.mark.slow
@many_files
@given(edits)
def test_hundreds_of_damaged_files_are_planned_or_refused(folder: Path, made: list[tuple[int, int, bytes]]) -> None:
    answer_to(folder, apply_edits(OVERLAY, made))


@few
@given(st.binary(max_size=300) | st.lists(st.sampled_from(MARKS) | st.binary(max_size=3), max_size=40).map(b"".join))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file, time_limit():
        file.write(content)
        file.flush()
        with suppress(UnreadableYaml):
            read_yaml(Path(file.name))


def doubling(levels: int, part: str) -> str:
    """YAML in which each value consists of ten aliases of the previous value."""
    lines = [f"n0: &n0 {part}"]
    lines += [f"n{level}: &n{level} [{', '.join([f'*n{level - 1}'] * 10)}]" for level in range(1, levels)]
    return "\n".join(lines)


BOMBS = {
    "lists": (doubling(9, "[x, x]"), "with its aliases expanded, it has more than 100,000 values"),
    "sections": (
        "\n".join(
            ["n0: &n0 {a: 1}"]
            + [f"n{i}: &n{i} {{{', '.join(f'k{j}: *n{i - 1}' for j in range(10))}}}" for i in range(1, 9)]
        ),
        "with its aliases expanded, it has more than 100,000 values",
    ),
    "merged sections": (
        "\n".join(
            ["n0: &n0 {a: 1}"] + [f"n{i}: &n{i} {{<<: [{', '.join([f'*n{i - 1}'] * 10)}]}}" for i in range(1, 9)]
        ),
        "with its aliases expanded, it has more than 100,000 values",
    ),
    "a number in base 60": ("a: " + ":".join(["1"] * 50_000), "expected a decimal number, or quotes around it"),
    "a hexadecimal number": ("a: 0x" + "f" * 100_000, "expected a decimal number, or quotes around it"),
    "a fraction in base 60": ("a: " + ":".join(["1"] * 5_000) + ".5", "expected a decimal number, or quotes around it"),
    "digits": ("a: 1" + "0" * 99_999, "a number of 100,000 characters"),
    "a fraction": ("a: ." + "1" * 99_999, "a number of 100,000 characters"),
    "nesting": ("a: " + "[" * 20_000, "sections and lists are nested more than 100 deep"),
    "nested sections": (
        "\n".join(" " * level + "a:" for level in range(600)),
        "sections and lists are nested more than 100 deep",
    ),
    "a large file": ("# " + "x" * MAX_YAML_BYTES, "expected at most 262,144"),
}


@pytest.mark.parametrize(("content", "expected"), BOMBS.values(), ids=BOMBS)
def test_a_small_yaml_file_cannot_expand_beyond_the_limits(folder: Path, content: str, expected: str) -> None:
    answer = answer_to(folder, content.encode())
    assert isinstance(answer, str)
    assert expected in answer


def test_aliases_that_expand_to_little_are_accepted(folder: Path) -> None:
    content = b"base: mini\ntraining: &a {seeds: [3]}\nmethods: {core: &b {batch: 8}, esd: {<<: *b}}\n"
    answer = answer_to(folder, content)
    assert isinstance(answer, Study)
    assert answer.methods["esd"].batch == 8


def test_reading_a_study_that_is_a_pipe_does_not_block(folder: Path) -> None:
    file = folder / "studies/pipe.yaml"
    os.mkfifo(file)
    answer = planned_or_refused("pipe", folder)
    file.unlink()
    assert isinstance(answer, str)
    assert "not a regular file" in answer


@pytest.mark.parametrize("name", ["a b", "a\nb", "Ａ", "..", ".hidden", "-rf", "a.b", "x" * 300 + "/../tiny"])
def test_a_file_with_an_invalid_name_is_no_study(folder: Path, name: str) -> None:
    if "/" not in name:
        (folder / f"studies/{name}.yaml").write_text("base: tiny\n")
    answer = planned_or_refused(name, folder)
    assert isinstance(answer, str)
    assert "there is no such study" in answer


@pytest.mark.parametrize(
    "place", ["results/../tiny", "results/tiny/../../x", "/results", "tiny", "results/a/b", "results/Ａ"]
)
def test_a_product_outside_the_folder_of_results_is_no_target(place: str) -> None:
    with pytest.raises(ConfigurationError, match="expected results/table1, or results/STUDY/table1"):
        product_at(Path(place), "table1", lambda _: pytest.fail("nothing is planned for it"))


@pytest.mark.parametrize(
    "line", ["a,b", "table1,Forget25,core,UA,x,1,2", "table1,Forget25,core,UA,1,1,-2", "t,../x,c,UA,1,,"]
)
def test_a_malformed_line_of_published_numbers_is_reported_in_one_sentence(tmp_path: Path, line: str) -> None:
    (tmp_path / "published.csv").write_text(f"table,task,row,metric,value,k,n\n{line}\n")
    with pytest.raises(ConfigurationError, match=r"published\.csv: .*, expected table, task, row, metric, value"):
        load_published(tmp_path)
