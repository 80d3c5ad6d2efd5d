"""Targets that no rule makes are refused in one sentence; other targets are accepted in every spelling."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.checkout import REPOSITORY, Checkout

from corelib.costs.forecast import forecast_of
from corelib.errors import ConfigurationError
from corelib.workflow.unknown_target import UNKNOWN_PRODUCT_PATTERN, unknown_target_error

CONFIGURATION = REPOSITORY / "config"


KNOWN = " or ".join(
    f"results/tiny/{name}" for name in ("table1.csv", "charts1.tradeoff.png", "figure2.png", "report.html")
)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("results/tabel1.csv", "results/table1.csv"),
        ("results/table1", "results/table1.csv"),
        ("results/mini/Table1.csv", "results/mini/table1.csv"),
        ("results/mini/table1.html", "results/mini/table1.csv"),
        ("results/mini/charts1.style.png", "results/mini/charts1.styles.png"),
        ("results/mini/table2.cell.csv", "results/mini/table2.cells.csv"),
        ("results/mini/claim.md", "results/mini/claims.md"),
        ("results/tiny", KNOWN),
        ("results/tiny/x", KNOWN),
    ],
)
def test_the_error_for_a_mistyped_target_suggests_another(target: str, expected: str) -> None:
    assert (
        str(unknown_target_error(target, CONFIGURATION)) == f"{target}: there is no such target, expected {expected}."
    )


def test_the_error_for_a_target_of_an_unknown_study_lists_the_studies() -> None:
    with pytest.raises(ConfigurationError, match="there is no such study, expected one of paper, extended, mini,"):
        unknown_target_error("results/nosuch/x", CONFIGURATION)


def test_the_error_for_a_target_of_a_misspelt_study_names_the_nearest_study_first() -> None:
    with pytest.raises(ConfigurationError, match="there is no such study, expected `mini-seeds`, or else one of paper"):
        unknown_target_error("results/mini-seedss/table1.csv", CONFIGURATION)


def test_the_error_for_the_file_of_a_study_in_another_folder_says_where_it_belongs(tmp_path: Path) -> None:
    shutil.copytree(CONFIGURATION, tmp_path / "config")
    file = tmp_path / "config/elsewhere.yaml"
    file.write_text("base: mini\n")
    for target in ("elsewhere", "config/elsewhere.yaml"):
        assert str(unknown_target_error(target, tmp_path / "config")) == (
            f"{file}: the file of a study, expected it to be {tmp_path / 'config/studies/elsewhere.yaml'}; move it."
        )


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (
            "mini",
            "a study, not a target, expected one of its targets, such as results/mini/table1.csv, or all: $(",
        ),
        (
            "config/studies/mini.yaml",
            "a study, not a target, expected one of its targets, such as results/mini/table1.csv",
        ),
        ("mini.yml", "a study, not a target, expected one of its targets, such as results/mini/table1.csv"),
        ("Mini", "not a target; perhaps you mean the study mini, expected one of its targets, such as results/mini/"),
        ("table1", "there is no such target, expected results/table1.csv."),
        ("mini/table1.tex", "there is no such target, expected results/mini/table1.tex."),
        ("mini/figure2", "there is no such target, expected results/mini/figure2.png."),
        ("nosuchthing", "there is no such target, expected a path such as results/mini/table1.csv; `snakemake -c1`"),
    ],
)
def test_the_error_for_a_target_outside_the_results_names_what_is_meant(target: str, expected: str) -> None:
    assert str(unknown_target_error(target, CONFIGURATION)).startswith(f"{target}: {expected}")


def test_the_error_for_a_study_file_with_another_ending_says_to_rename_it(tmp_path: Path) -> None:
    shutil.copytree(CONFIGURATION, tmp_path / "config")
    file = tmp_path / "config/studies/foo.yml"
    file.write_text("base: mini\n")
    assert str(unknown_target_error("foo.yml", tmp_path / "config")) == (
        f"{file}: the file of a study ends in .yaml; rename it to foo.yaml."
    )


def test_snakemake_without_a_target_lists_the_studies_and_builds_nothing(tmp_path: Path) -> None:
    clone = Checkout.at(tmp_path / "clone")
    (clone.folder / "config/studies/broken.yaml").write_text("methods: {core: {learning_rate: }}\n")
    done = clone.snakemake("--cores", "1")
    assert done.returncode == 1 and not (clone.folder / "runs").exists()
    overview = done.stdout.partition("Error: ")[2]
    assert overview.startswith("no target, expected one or more targets of these studies:\n  paper ")
    assert (
        "results/mini/table1.csv and 11 more" in overview and "`snakemake all` builds all of the paper's." in overview
    )
    assert "  broken                     not valid: " in overview
    for target in ("mini", "nosuchthing"):
        done = clone.snakemake(target, "--cores", "1")
        assert done.returncode == 1 and done.stdout.count(f"Error: {target}: ") == 1
        assert "Exception" not in done.stdout and "Traceback" not in done.stdout


def test_all_is_a_target(tmp_path: Path) -> None:
    assert Checkout.at(tmp_path / "clone").planned("all")["tabulate"] == 4


def test_make_help_lists_every_target_of_make() -> None:
    text = (REPOSITORY / "Makefile").read_text()
    done = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert re.findall(r"^make ([\w-]+)  ", done.stdout, re.MULTILINE) == phony.split()
    assert subprocess.run(["make"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout == done.stdout


def products_of_rules() -> list[str]:
    """The products of the rules of reports, read from their text."""
    text = "".join((REPOSITORY / "rules" / name).read_text() for name in ("reports.smk", "summaries.smk"))
    return [
        f"/tiny/{product}{ending}"
        for rule in text.split("\nrule ")[1:]
        for product in re.findall(r'product=r?"(table|charts|figure|gate|claims|report)', rule)
        for ending in re.findall(r'"\{place\}/\{product\}([a-z.]+)"', rule.replace(r"\w+", ""))
    ]


def test_products_of_rules_are_not_unknown_targets() -> None:
    products = products_of_rules()
    assert len(products) == 33
    for product in products:
        product = re.sub("(table|charts|figure)", r"\g<1>1", product)
        assert not re.fullmatch(UNKNOWN_PRODUCT_PATTERN, product), product
        assert not re.fullmatch(UNKNOWN_PRODUCT_PATTERN, product.removeprefix("/tiny")), product
        assert re.fullmatch(UNKNOWN_PRODUCT_PATTERN, f"/a/b{product}") and re.fullmatch(
            UNKNOWN_PRODUCT_PATTERN, f"{product}x"
        )


@pytest.mark.parametrize("profile", [("--cores", "1"), ("--profile", "slurm", "--dry-run")])
def test_snakemake_prints_only_the_error(profile: tuple[str, ...], tmp_path: Path) -> None:
    clone = Checkout.at(tmp_path / "clone")
    (clone.folder / "results/tiny").mkdir(parents=True)
    for target in ("results/tiny", "results/tiny/tabel1.csv"):
        done = clone.snakemake(target, *profile)
        assert done.returncode == 1
        assert done.stdout.count(f"Error: {target}: there is no such target, expected results/tiny/table1.csv") == 1
        assert "Exception" not in done.stdout and "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("{here}/results/tiny/table1.csv", "an absolute path, expected results/tiny/table1.csv."),
        ("{here}/results/tiny/tabel1.csv", "there is no such target, expected results/tiny/table1.csv."),
        ("{here}/runs/x/y/manifest.json", "an absolute path, expected runs/x/y/manifest.json."),
        ("/elsewhere/results/table1.csv", "outside {here}, expected a target inside it, such as results/table1.csv."),
    ],
)
def test_the_error_for_an_absolute_target_suggests_a_relative_one(target: str, message: str, tmp_path: Path) -> None:
    clone = Checkout.at(tmp_path / "clone")
    (tmp_path / "link").symlink_to(clone.folder)
    for here in (clone.folder, tmp_path / "link"):
        requested = target.format(here=here)
        done = clone.snakemake("-n", requested, "--cores", "1")
        assert done.returncode == 1
        assert f"Error: {requested}: {message.format(here=clone.folder)}" in done.stdout, done.stdout
        assert "Exception" not in done.stdout and "Traceback" not in done.stdout


@pytest.mark.parametrize(
    "target", ["./results/tiny/table1.csv", "results//tiny/table1.csv", "results/mini/../tiny/table1.csv"]
)
def test_snakemake_accepts_every_spelling_of_a_target(target: str, tmp_path: Path) -> None:
    clone = Checkout.at(tmp_path / "clone")
    assert clone.planned(target)["tabulate"] == 1


@pytest.mark.parametrize(
    "target", ["{here}/results/tiny/table1.csv", "./results/tiny/table1.csv", "results/mini/../tiny/table1.csv"]
)
def test_commands_accept_every_spelling_of_a_target(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found, _ = forecast_of([target.format(here=tmp_path)], CONFIGURATION)
    assert list(found.asked) == ["results/tiny/table1"]


def test_commands_refuse_a_target_outside_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"expected a table or figure, such as results/table1\.csv"):
        forecast_of(["/elsewhere/results/tiny/table1.csv"], CONFIGURATION)
