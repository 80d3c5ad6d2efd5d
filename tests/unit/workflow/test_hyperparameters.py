"""Hyperparameters on Snakemake's command line are refused with the lines of the study that sets them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.checkout import Checkout

from corelib.errors import ConfigurationError
from corelib.workflow.hyperparameters import check_no_hyperparameters


@pytest.mark.parametrize(
    ("values", "files", "parts"),
    [
        (
            {"methods": {"core": {"learning_rate": "2e-5"}}},
            [],
            [
                "--config methods.core.learning_rate=2e-5: hyperparameters belong in a study",
                "with the lines `base: mini` and `methods: {core: {learning_rate: 2e-5}}` (or",
                "`python -m corelib study new NAME --base mini --set 'methods.core.learning_rate=2e-5'`)",
            ],
        ),
        ({"gate": None}, [], ["--config gate=null: ", "`base: mini` and `gate: null`"]),
        ({"base": "mini"}, [], ["--config base: hyperparameters belong", "with `base: mini` as its first line"]),
        (
            {"sampling": {"a": 1, "b": 2, "c": 3, "d": 4}},
            [],
            ["--config sampling: hyperparameters belong", "write its leaves to"],
        ),
        (
            {"methods": {}},
            [Path("my.yaml")],
            ["--configfile my.yaml: hyperparameters belong in a study", "save it as config/studies/NAME.yaml"],
        ),
    ],
)
def test_the_error_has_the_lines_of_the_study(values: dict[str, Any], files: list[Path], parts: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_no_hyperparameters(values, files)
    assert all(part in str(caught.value) for part in parts), caught.value
    assert "\n" not in str(caught.value)


def test_the_values_of_a_site_are_no_hyperparameters() -> None:
    check_no_hyperparameters({"account": "us", "jobs": 3}, [])


def test_snakemake_prints_only_the_error(tmp_path: Path) -> None:
    clone = Checkout.at(tmp_path / "clone")
    (clone.folder / "my.yaml").write_text("methods: {core: {learning_rate: 2e-5}}\n")
    for option in (("--config", "methods={core: {learning_rate: 2e-5}}"), ("--configfile", "my.yaml")):
        done = clone.snakemake("-n", "results/mini/table1.csv", *option)
        assert done.returncode == 1 and done.stdout.count("Error: ") == 1, done.stdout
        assert "config/studies/NAME.yaml" in done.stdout and "Traceback" not in done.stdout
