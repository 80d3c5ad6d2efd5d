"""`study new` writes a valid study or nothing, and never over another file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.checkout import REPOSITORY

from corelib.commands import study as command
from corelib.commands.cli import main
from corelib.files.yaml_files import parse_yaml
from corelib.study.loading import load_study


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    monkeypatch.setattr(command, "CONFIGURATION", tmp_path / "config")
    return tmp_path / "config"


def test_a_new_study_differs_from_its_base_in_the_given_leaves(
    configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leaves = ["methods.core.learning_rate=2e-5", "methods.core.batch=8", "training.seeds=[0, 1]", "gate=null"]
    settings = [word for leaf in leaves for word in ("--set", leaf)]
    assert main(["study", "new", "gentler", "--base", "mini", *settings]) == 0
    assert (configuration / "studies/gentler.yaml").read_text() == (
        "base: mini\nmethods: {core: {learning_rate: 2e-5, batch: 8}}\ntraining: {seeds: [0, 1]}\ngate: null\n"
    )
    study = load_study("gentler", configuration)
    assert (study.methods["core"].learning_rate, study.methods["core"].batch, study.training.seeds) == (2e-5, 8, [0, 1])
    assert "snakemake -c2 results/gentler/table1.csv\n" in capsys.readouterr().out


def test_texts_are_quoted_where_they_need_it(configuration: Path) -> None:
    title = "methods.core.title=CORE: half, {gentle} #1"
    assert main(["study", "new", "titled", "--base", "mini", "--set", title]) == 0
    content = parse_yaml((configuration / "studies/titled.yaml").read_text())
    assert content["methods"]["core"]["title"] == "CORE: half, {gentle} #1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mini", "--set", "gate=null"], "mini.yaml: it exists already, expected the name of a new study"),
        (["paper"], "paper: expected a name of letters, digits, `_` and `-`, other than 'paper'."),
        (["a/b"], "a/b: expected a name of letters"),
        (["x", "--base", "nosuch"], "x.yaml: base is 'nosuch', expected one of paper, "),
        (
            ["x", "--set", "methods.core.learning_rte=1e-5"],
            "learning_rte is not a known key, expected `learning_rate`.",
        ),
        (
            ["x", "--set", "methods.core.learning_rate=2e5"],
            "x.yaml: methods.core.learning_rate is 200000.0, expected a",
        ),
        (["x", "--set", "methods.core.learning_rate"], "--set methods.core.learning_rate: expected KEY=VALUE, such as"),
        (["x", "--set", "methods..batch=8"], "--set methods..batch=8: expected KEY=VALUE, such as"),
        (["x", "--set", "gate=null", "--set", "gate=warn"], "--set gate=warn: gate is set twice, expected once."),
        (["x", "--set", "gate=yes"], "--set gate=yes: not readable as YAML: YAML readers disagree about what `yes`"),
        (
            ["x", "--set", "methods.core={batch: 8}", "--set", "methods.core.batch=8"],
            "a part of methods.core.batch is set as well, expected one of them.",
        ),
    ],
)
def test_an_invalid_study_is_not_written(
    arguments: list[str], message: str, configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {file: file.read_bytes() for file in (configuration / "studies").iterdir()}
    assert main(["study", "new", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert {file: file.read_bytes() for file in (configuration / "studies").iterdir()} == before
