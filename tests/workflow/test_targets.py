"""Targets that no rule makes are refused in one sentence; other targets are accepted in every spelling."""

from __future__ import annotations

import re
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
        ("results/tiny", KNOWN),
        ("results/tiny/x", KNOWN),
    ],
)
def test_the_error_for_a_mistyped_target_suggests_another(target: str, expected: str) -> None:
    assert (
        str(unknown_target_error(target, CONFIGURATION)) == f"{target}: there is no such target, expected {expected}."
    )


def test_the_error_for_a_target_of_an_unknown_study_lists_the_studies() -> None:
    with pytest.raises(ConfigurationError, match="there is no such study, expected one of paper, mini,"):
        unknown_target_error("results/nosuch/x", CONFIGURATION)


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
