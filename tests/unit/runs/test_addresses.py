"""Addresses of runs: what they depend on, and what they do not."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.checkout import REPOSITORY
from support.records import EXECUTION, manifest, specification

from corelib.errors import ArtefactError
from corelib.runs import fingerprint
from corelib.runs.fingerprint import (
    NUMERICAL_PACKAGES,
    NUMERICAL_REQUIREMENTS,
    _imports,
    _unparse,
    code_digests,
    digest_of_modules,
    package_versions,
)
from corelib.runs.input_runs import trained_behind
from corelib.runs.layout import slugify
from corelib.runs.manifest import Manifest
from corelib.runs.run import Run
from corelib.runs.specification import Execution, digest_of
from corelib.settings.evaluation import Classification, PredictionsStage
from corelib.study.loading import load_plan, load_study
from corelib.study.plan import Plan
from corelib.study.published import load_published

SCRIPT = REPOSITORY / "workflow_scripts/classify.py"


def run(batch: int = 1, threads: int = 1, slug: str = "slug", stage: str = "predictions", **inputs: Run) -> Run:
    settings = PredictionsStage(classification=Classification(batch=batch))
    return Run(stage, (SCRIPT,), slug, settings, threads, inputs, execution=EXECUTION)


def test_everything_that_affects_a_result_changes_its_digest() -> None:
    digests = [
        run().digest,
        run(batch=2).digest,
        run(threads=2).digest,
        run(stage="other").digest,
        run(samples=run()).digest,
        run(samples=run(batch=2)).digest,
        run(images=run()).digest,
        Run(
            "predictions", (REPOSITORY / "workflow_scripts/sample.py",), "slug", run().settings, 1, execution=EXECUTION
        ).digest,
    ]
    assert len(set(digests)) == len(digests)


def test_slug_and_execution_do_not_change_the_address() -> None:
    assert run(slug="one").digest == run(slug="other").digest
    other = replace(run(), execution=Execution(batches_per_shard=1, checkpoint_seconds=9.0))
    assert other.digest == run().digest


def test_a_specification_has_the_digest_of_its_run() -> None:
    specification = json.loads(json.dumps(run(samples=run()).specification.content))
    assert digest_of(specification) == run(samples=run()).digest
    assert run(samples=run()).specification.has_its_digest()


DIGEST = "-0123456789ab"


def complete_run(name: str, **trained: str) -> Manifest:
    """The manifest of a complete run, with the builds of the models from which it was made."""
    seals = {f"pipeline/{key}{DIGEST}": seal for key, seal in trained.items()}
    made = manifest(Path("runs", name + DIGEST), stage=name.partition("/")[0], trained=seals)
    return made.model_copy(update={"seal": "S"})


def trained_models(**inputs: Manifest) -> dict[str, str]:
    names = {role: str(made.folder.relative_to("runs")) for role, made in inputs.items()}
    found = trained_behind(specification(slug="core", builds_on=names), inputs)
    return {name.removesuffix(DIGEST): seal for name, seal in found.items()}


def test_inputs_from_different_builds_of_a_model_are_refused() -> None:
    assert trained_models(images=complete_run("images/x")) == {}
    assert trained_models(pipeline=complete_run("pipeline/x"), latents=complete_run("latents/y", x="S")) == {
        "pipeline/x": "S"
    }
    assert trained_models(predictions=complete_run("predictions/a", x="R"), fid=complete_run("fid/b", x="R")) == {
        "pipeline/x": "R"
    }
    with pytest.raises(
        ArtefactError,
        match=r"^runs/latents/y-\w+: the inputs of .* were built from different trainings of runs/pipeline/x-",
    ):
        trained_models(pipeline=complete_run("pipeline/x"), latents=complete_run("latents/y", x="R"))
    with pytest.raises(
        ArtefactError,
        match=r"^runs/predictions/a-\w+ and runs/fid/b-\w+: the inputs of .* were built from different trainings",
    ):
        trained_models(predictions=complete_run("predictions/a", x="R"), fid=complete_run("fid/b", x="S"))


def test_an_existing_run_under_another_name_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Therefore a new row that equals a later row of its table trains nothing."""
    monkeypatch.chdir(tmp_path)
    configuration = tmp_path / "config"
    shutil.copytree(REPOSITORY / "config", configuration)
    (configuration / "studies/sweep.yaml").write_text(
        "base: mini\nmethods: {my_core: {like: core, title: Mine}}\n"
        "tables: {table1: {rows: [original, my_core, core]}}\n"
    )
    known = load_plan("mini", configuration).table("table1").with_all_inputs()
    without_runs = load_plan("sweep", configuration).table("table1").with_all_inputs()
    assert not {name for name in known if name.startswith("unlearning/core-")} <= without_runs.keys()
    for run in known.values():
        run.folder.mkdir(parents=True)
        (run.folder / "specification.json").write_text("{}")
    with_runs = load_plan("sweep", configuration).table("table1").with_all_inputs()
    assert {name for name in with_runs if not name.startswith("tables/")} <= known.keys()


def test_the_import_closure_excludes_the_job_runner() -> None:
    modules = code_digests(SCRIPT)
    assert {
        "classify.py",
        "corelib.evaluation.classification",
        "corelib.files.atomic",
        "corelib.settings.section",
    } <= modules.keys()
    assert "corelib.runs.job" not in modules
    assert {"torch", "timm", "pillow"} <= package_versions(SCRIPT).keys()


@pytest.mark.parametrize("package", NUMERICAL_PACKAGES.values())
def test_declared_requirements_of_numerical_packages_are_known(package: str) -> None:
    declared = {Requirement(text) for text in importlib.metadata.requires(package) or []}
    always = {found.name for found in declared if found.marker is None or found.marker.evaluate({"extra": ""})}
    assert {canonicalize_name(name) for name in always} & {*NUMERICAL_PACKAGES.values()} <= {
        *NUMERICAL_REQUIREMENTS.get(package, ())
    }


def test_the_digest_of_a_module_does_not_depend_on_its_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest_of(code: str) -> str:
        (path := tmp_path / f"{len(list(tmp_path.iterdir()))}.py").write_text(code)
        monkeypatch.setattr(fingerprint, "source_file", lambda name: path)
        return digest_of_modules(path.name)

    drawn = digest_of(
        "from corelib.runs.stage_context import StageContext\nimport numpy as np\n\ndef draw(): return 1\n"
    )
    assert digest_of("from corelib.runs.stage_context import StageContext\n\ndef draw():\n    return 1\n") == drawn
    assert digest_of("import numpy as np\n\ndef draw(): return 2\n") != drawn


def test_imports_that_only_type_checkers_see_are_not_followed(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import never\n    if True:\n        import neither\n"
        "elif here:\n    import one\n"
        "else:\n    from two import three\n    if TYPE_CHECKING:\n        import nor\n    else:\n        import four\n"
        "if TYPE_CHECKING:\n    pass\nelif TYPE_CHECKING:\n    import none\n"
    )
    assert _imports(module) == {"typing", "typing.TYPE_CHECKING", "one", "two", "two.three", "four"}


def test_slugs_are_parts_of_paths() -> None:
    assert slugify("CA_model-Forget06/../x y") == "ca_model-forget06-x-y"


@pytest.mark.parametrize("study", ["paper", "tiny"])
def test_addresses_do_not_depend_on_the_location_of_the_clone(study: str, tmp_path: Path) -> None:
    here = names(REPOSITORY, study)
    for name in ("corelib", "workflow_scripts", "config"):
        shutil.copytree(REPOSITORY / name, tmp_path / "elsewhere" / name)
    assert names(tmp_path / "elsewhere", study) == here


def names(repository: Path, study: str) -> list[str]:
    program = (
        "from pathlib import Path; from corelib.study.plan import Plan\n"
        "from corelib.study.loading import load_published, load_study\n"
        f"plan = Plan({study!r}, load_study({study!r}, Path('config')), load_published(Path('config')))\n"
        "print(*sorted({name for run in plan.products().values() for name in run.with_all_inputs()}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(repository), "PYTHONHASHSEED": "random"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=repository, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_equal_runs_of_different_tables_are_one_run() -> None:
    plan = Plan("paper", load_study("paper", REPOSITORY / "config"), load_published(REPOSITORY / "config"))
    assert plan.unlearning("Forget25", "core", "one_to_one").name == plan.unlearning("Forget25", "core", None).name
    assert plan.samples("Forget01", "original", None) is plan.samples("Forget25", "original", None)


@pytest.mark.parametrize(
    ("code", "written"),
    [
        ("x = 1", "Module(body=[Assign(targets=[Name(id='x',ctx=Store())],value=Constant(value=1))])"),
        (
            "f'{a!r:>{w}}' 'b'",
            "Module(body=[Expr(value=JoinedStr(values=[FormattedValue(value=Name(id='a',ctx=Load()),conversion=114,"
            "format_spec=JoinedStr(values=[Constant(value='>'),FormattedValue(value=Name(id='w',ctx=Load()),"
            "conversion=-1)])),Constant(value='b')]))])",
        ),
        (
            "def f(): 'docstring'\nclass C:\n    a: int\n    'about a'",
            "Module(body=[FunctionDef(name='f',args=arguments(),body=[]),ClassDef(name='C',body=[AnnAssign("
            "target=Name(id='a',ctx=Store()),annotation=Name(id='int',ctx=Load()),simple=1)])])",
        ),
    ],
)
def test_code_has_the_same_text_in_every_version_of_python(code: str, written: str) -> None:
    """The texts are those of 3.11, 3.12 and 3.13, although `ast.unparse` and `ast.dump` differ between these."""
    assert _unparse(ast.parse(code)) == written
