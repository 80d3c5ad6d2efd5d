"""The contract of docs/reruns.md: a change rebuilds what the page says, and nothing else.

`make test` tests a sample of it, `make test-all` everything.
"""

from __future__ import annotations

import ast
import copy
import functools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from support.checkout import REPOSITORY, Checkout
from support.contract import (
    LOCKED,
    NOTHING,
    STUDIES,
    FakeBuild,
    PlannedStudy,
    cases_of,
    check,
    check_leaves,
    leaves_of,
    one_of_each_row,
    prepare_checkout,
    tables_of_page,
)

from corelib.errors import ConfigurationError
from corelib.runs import fingerprint
from corelib.runs.fingerprint import NUMERICAL_PACKAGES, UNCOUNTED_MODULES, code_digests
from corelib.runs.stage_registry import STAGES
from corelib.settings.section import Section
from corelib.study.loading import load_plan
from corelib.study.overlays import merge_study
from corelib.study.schema import Study
from corelib.study.shipped_world import DRAWING_MODULES
from corelib.study.study_files import study_names

AT_ONCE = 30
SAMPLE = {
    ("training", "seeds"),
    ("training", "scale", "length"),
    ("methods", "core", "learning_rate"),
    ("methods", "esd", "title"),
    ("sampling", "scheduler", "eta"),
    ("sampling", "jpeg_quality"),
    ("classification", "batch"),
    ("threads", "evaluation"),
    ("execution", "batches_per_shard"),
}
"""Leaves that are changed in the folder of a build. They affect models, images, evaluations, products, or nothing."""
SCRIPTS = sorted((REPOSITORY / "workflow_scripts").glob("*.py"))
MODULES = sorted(path for path in (REPOSITORY / "corelib").rglob("*.py") if path.name != "__init__.py")
WAITING = {name for name, stage in STAGES.items() if stage.waits_for_gate}
BASE_MODEL, CLASSIFIERS = {"assets", "conversion", "pipeline", "pretrained"}, {"assets", "classifier", "pretrained"}
IN_WORDS = {
    "the world's images": {"assets", "images"},
    "the base model": BASE_MODEL,
    "the model's pipeline": BASE_MODEL | {"retrained"},
    "the classifiers": CLASSIFIERS,
    "the features": CLASSIFIERS,
}


# Leaves


@pytest.mark.long
@pytest.mark.parametrize(
    "head", [pytest.param("leaf", marks=pytest.mark.slow), "leaf of the miniature", "leaf of own images"]
)
def test_one_leaf_of_each_row_rebuilds_what_the_page_says(head: str, tmp_path: Path) -> None:
    _, _, leaves = prepare_checkout(tmp_path / "to-read", head)
    assert check(tmp_path / "clone", head, one_of_each_row(cases_of(head, leaves)), AT_ONCE) == []


def test_a_sample_of_leaves_rebuilds_what_the_page_says_in_the_folder_of_a_build(workplace: Checkout) -> None:
    """With real results and Snakemake's metadata, and twice in a row."""
    checkout = FakeBuild(workplace.folder)
    merged, _ = merge_study("tiny", checkout.configuration, ())
    leaves = [(key, value) for key, value in leaves_of(merged) if key in SAMPLE]
    cases = cases_of("leaf", leaves)
    assert len(cases) == len(SAMPLE)
    for _ in range(2):
        assert check_leaves(checkout, "tiny", PlannedStudy.of("tiny", checkout.configuration), cases) == []


@pytest.mark.slow
@pytest.mark.parametrize("head", STUDIES)
def test_every_leaf_rebuilds_what_the_page_says(head: str, tmp_path: Path) -> None:
    assert check(tmp_path / "clone", head, at_once=AT_ONCE) == []


def test_every_row_about_leaves_matches_an_existing_leaf(tmp_path: Path) -> None:
    for head in STUDIES:
        _, _, leaves = prepare_checkout(tmp_path / head, head)
        used = {case.promise for case in cases_of(head, leaves)}
        assert len(used) == len(tables_of_page()[head])


def test_the_tests_change_every_leaf_that_the_configuration_can_have(tmp_path: Path) -> None:
    """According to the types of the configuration, with all kinds of worlds, targets and lengths."""
    tested: set[tuple[str, ...]] = set()
    for head, (study, _) in STUDIES.items():
        checkout, _, _ = prepare_checkout(tmp_path / head, head)
        merged, _ = merge_study(study, checkout.configuration, ())
        tested |= {key for key, _ in leaves_of(merged)}
    missing = {key for key in leaves_of_type(Study) if not any(_fits(key, leaf) for leaf in tested)}
    assert missing == {("methods", "*", "objective", "retain", "target", "eta")}, "a guided retain target is refused"


def leaves_of_type(annotation: Any, key: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every leaf of a configuration type, with `*` for names that the user chooses; a list is one leaf."""
    if get_origin(annotation) is Annotated:
        yield from leaves_of_type(get_args(annotation)[0], key)
    elif isinstance(annotation, type) and issubclass(annotation, Section):
        for name, field in annotation.model_fields.items():
            yield from leaves_of_type(field.annotation, (*key, name))
    elif get_origin(annotation) is dict and key != ("anchoring", "one_to_one"):
        yield from leaves_of_type(get_args(annotation)[1], (*key, "*"))
    elif get_origin(annotation) in (Union, type(int | str)):
        for member in get_args(annotation):
            if member is not type(None) and not (get_origin(member) is Literal and key[-1:] == ("images",)):
                yield from leaves_of_type(member, key)
    else:
        yield key


def _fits(pattern: tuple[str, ...], leaf: tuple[str, ...]) -> bool:
    same = len(pattern) == len(leaf)
    return same and all(part in ("*", own) for part, own in zip(pattern, leaf, strict=True))


def test_the_shipped_world_allows_no_change_of_its_leaves(tmp_path: Path) -> None:
    checkout = FakeBuild(Checkout.at(tmp_path / "clone").folder)
    merged, _ = merge_study("miniatures", add_studies(checkout), ())
    leaves = [leaf for leaf in leaves_of(merged) if leaf[0][0] in ("world", "prompts")]
    for case in cases_of("leaf of the miniature", leaves):
        if case.key == ("world", "pretrained"):
            continue
        checkout.add_study("other", json.dumps({"base": "mini", **case.overlay}))
        with pytest.raises(ConfigurationError):
            load_plan("other", checkout.configuration)


def add_studies(checkout: FakeBuild) -> Path:
    for study, text in STUDIES.values():
        checkout.add_study(study, text)
    return checkout.configuration


# Inputs of runs


@pytest.mark.parametrize("study", [*study_names(REPOSITORY / "config"), *(name for name, _ in STUDIES.values())])
def test_runs_build_on_the_stages_that_the_page_names_and_on_no_others(study: str, tmp_path: Path) -> None:
    checkout = FakeBuild(Checkout.at(tmp_path / "clone").folder)
    add_studies(checkout)
    rows = {stage.strip("`"): built_on for stage, built_on in tables_of_page()["stage"]}
    for run in PlannedStudy.of(study, checkout.configuration).runs.values():
        below = {input_.stage for input_ in run.inputs.values()}
        always, _, sometimes = rows[run.stage].partition(";")
        for term in filter(None, always.split(", ")):
            assert not below.isdisjoint(stages_in(term)), f"{run.name} does not build on {term}"
        assert below <= stages_in(always) | stages_in(sometimes), run.name


def stages_in(words: str) -> set[str]:
    """The stages that a row of the graph names, directly or in words."""
    named = set(re.findall(r"`(\w+)`", words))
    return named | {stage for phrase, stages in IN_WORDS.items() if phrase in words for stage in stages}


def test_every_stage_has_a_row() -> None:
    assert {row[0].strip("`") for row in tables_of_page()["stage"]} == scripts_of_stages().keys()


# Code


def scripts_of_stages() -> dict[str, tuple[Path, ...]]:
    """The scripts of each stage, according to the outputs in the rules."""
    found: dict[str, tuple[Path, ...]] = {}
    for path in sorted((REPOSITORY / "rules").glob("*.smk")):
        for rule in path.read_text().split("\nrule ")[1:]:
            script = re.search(r"workflow_scripts/(\w+\.py)", rule)
            stage = re.search(r"\"runs/(\w+)/", rule)
            assert script is not None
            products = {
                "tabulate": "tables",
                "draw_charts": "charts",
                "draw": "figures",
                "report_probe": "probes",
                "report_sequence": "sequences",
                "compare": "comparisons",
                "report_gate": "gates",
                "evaluate_claims": "claims",
                "write_report": "reports",
            }
            name = stage[1] if stage else products[rule.split(":")[0]]
            found[name] = (*found.get(name, ()), REPOSITORY / "workflow_scripts" / script[1])
    return found


def promised_stages(head: str) -> dict[str, set[str]]:
    """The stages of each module or package in a table of the page."""
    found = {}
    for names, stages in tables_of_page()[head]:
        named = set(scripts_of_stages()) if stages == "every stage" else set(re.findall(r"`(\w+)`", stages))
        found |= {name.strip("`"): named for name in names.split(", ")}
    return found


def name_of(module: Path) -> str:
    """The name of a module on the page, without `corelib.`."""
    return ".".join(module.relative_to(REPOSITORY / "corelib").with_suffix("").parts)


def test_every_module_has_a_row_and_every_row_a_module() -> None:
    assert promised_stages("module").keys() == {name_of(module) for module in MODULES}


def test_the_digest_of_a_stage_covers_the_modules_that_the_page_names() -> None:
    promised = promised_stages("module")
    for stage, scripts in scripts_of_stages().items():
        own = {name.removeprefix("corelib.") for name in code_digests(*scripts) if name.startswith("corelib.")}
        own = {name for name in own if name in promised}
        assert own == {name for name, stages in promised.items() if stage in stages}, stage


@pytest.mark.slow
@pytest.mark.parametrize("stage", scripts_of_stages())
def test_modules_that_a_script_imports_are_in_the_digest_of_its_stage(stage: str) -> None:
    """Found by real imports, not by parsing the code."""
    scripts = scripts_of_stages()[stage]
    harness = loaded_by([f"import {name}" for name in sorted(UNCOUNTED_MODULES)])
    for script in scripts:
        lines = [
            line
            for line in script.read_text().splitlines()
            if re.match(r"from|import", line) and "corelib.runs.job" not in line
        ]
        assert loaded_by(lines) - harness <= code_digests(*scripts).keys()


@functools.cache
def _loaded_by(statements: str) -> frozenset[str]:
    probe = f"{statements}\nimport sys; print(*(n for n in sys.modules if n.startswith('corelib.')))"
    done = subprocess.run([sys.executable, "-c", probe], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return frozenset(n for n in done.stdout.split() if (REPOSITORY / (n.replace(".", "/") + ".py")).exists())


def loaded_by(lines: list[str]) -> frozenset[str]:
    """The modules that Python loads for some import lines."""
    return _loaded_by("\n".join(lines))


def runs_built_on_stages(planned: PlannedStudy, stages: set[str]) -> set[str]:
    return planned.built_on({name for name, run in planned.runs.items() if run.stage in stages})


class CompleteStudies:
    """Complete-looking studies of both worlds in a checkout, in which the tests then change something."""

    def __init__(self, folder: Path) -> None:
        self.checkout, papers, _ = prepare_checkout(folder, "leaf")
        self.checkout.add_study(*STUDIES["leaf of the miniature"])
        self.planned_studies: dict[str, PlannedStudy] = {"papers": papers}
        for name in ("miniatures", "mini"):
            self.planned_studies[name] = self.checkout.make_complete(name)

    def would_build(self, packages: Path | None = None) -> set[tuple[str, str]]:
        """What a dry run would build, without the digests, which differ after a change."""
        found = self.checkout.would_build(
            {name: planned.study for name, planned in self.planned_studies.items()}, packages
        )
        return {self._without_digest(name) for name in found}

    def of_stages(self, stages: set[str]) -> set[tuple[str, str]]:
        """What must be built after a change of the code of some stages."""
        found = set()
        for study, planned in self.planned_studies.items():
            products = {run.name: f"results/{study}/{name}" for name, run in planned.products.items()}
            found |= {products.get(name, name) for name in runs_built_on_stages(planned, stages)}
        return {self._without_digest(name) for name in found}

    def without(self, study: str) -> CompleteStudies:
        """The same without one of the studies."""
        other = copy.copy(self)
        other.planned_studies = {name: planned for name, planned in self.planned_studies.items() if name != study}
        return other

    @staticmethod
    def _without_digest(name: str) -> tuple[str, str]:
        stage, _, words = name.partition("/")
        return stage, re.sub(r"-[0-9a-f]{12}$", "", words)


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> CompleteStudies:
    return CompleteStudies(tmp_path_factory.mktemp("complete") / "clone")


def assert_only_rebuilds(stages: set[str], complete: CompleteStudies, packages: Path | None = None) -> None:
    """Assert that exactly these stages, and all that builds on them, are rebuilt.

    Stages that wait for a rebuilt gate may run as well, but they find their results and end.
    """
    found, wanted = complete.would_build(packages), complete.of_stages(stages)
    visited = complete.of_stages(WAITING) if any(stage == "gate" for stage, _ in wanted) else set()
    assert wanted <= found, f"not rebuilt: {sorted(wanted - found)[:5]}"
    assert found - visited <= wanted, f"rebuilt: {sorted(found - visited - wanted)[:5]}"


def assert_a_change_of_a_module_rebuilds_its_stages(name: str, complete: CompleteStudies) -> None:
    path = complete.checkout.folder / "corelib" / f"{name.replace('.', '/')}.py"
    before = path.read_text()
    if f"corelib.{name}" in DRAWING_MODULES:  # then the shipped world is refused
        complete = complete.without("mini")
    try:
        path.write_text(f"{before}\n\nassert __name__\n")
        assert_only_rebuilds(promised_stages("module")[name], complete)
        path.write_text(ast.unparse(ast.parse(before)) + "\n# a comment\n")
        assert complete.would_build() == set()
    finally:
        path.write_text(before)


@pytest.mark.parametrize("name", ["unlearning.objective", "study.plan"])
def test_a_changed_statement_in_some_modules_rebuilds_the_stages_that_the_page_names(
    name: str, complete: CompleteStudies
) -> None:
    assert_a_change_of_a_module_rebuilds_its_stages(name, complete)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name_of(module) for module in MODULES])
def test_a_changed_statement_in_any_module_rebuilds_the_stages_that_the_page_names(
    name: str, complete: CompleteStudies
) -> None:
    assert_a_change_of_a_module_rebuilds_its_stages(name, complete)


@pytest.mark.slow
@pytest.mark.parametrize("stage", scripts_of_stages())
def test_a_changed_script_rebuilds_its_stage(stage: str, complete: CompleteStudies) -> None:
    for script in scripts_of_stages()[stage]:
        path = complete.checkout.folder / "workflow_scripts" / script.name
        before = path.read_text()
        try:
            path.write_text(f"{before}\nassert __name__\n")
            assert_only_rebuilds({stage}, complete)
        finally:
            path.write_text(before)


# Statements


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS], ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_every_statement_changes_the_digest_but_comments_docstrings_and_layout_do_not(path: Path) -> None:
    tree = ast.parse(path.read_text())
    before = fingerprint._unparse(tree)
    assert fingerprint._unparse(ast.parse(ast.unparse(tree))) == before
    for body in bodies(tree):
        first = body[0] if body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            first.value.value += " And more."
    assert fingerprint._unparse(tree) == before
    for body in bodies(tree):
        for place, statement in enumerate(body):
            if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
                body[place] = ast.parse("assert __name__").body[0]
                assert fingerprint._unparse(tree) != before, ast.unparse(statement)
                body[place] = statement
    assert fingerprint._unparse(tree) == before


def bodies(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    """Every list of statements in a tree."""
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            if isinstance(found := getattr(node, name, None), list):
                yield found


def interpreter(version: int) -> str | None:
    """A Python of that version that starts on this machine; some commands on PATH do not."""
    places = [shutil.which(f"python3.{version}"), *Path.home().glob(f".pyenv/versions/3.{version}.*/bin/python")]
    starts = (
        str(path)
        for path in places
        if path and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0
    )
    return next(starts, None)


PYTHONS = {version: found for version in (11, 12, 13) if (found := interpreter(version))}


@pytest.mark.parametrize("version", PYTHONS)
def test_every_version_of_python_computes_the_same_digests(version: int) -> None:
    """Every installed Python computes the same digests, even without the packages."""
    probe = (
        "from pathlib import Path\n"
        "from corelib.runs.fingerprint import code_digests\n"
        "print([code_digests(script) for script in sorted(Path('workflow_scripts').absolute().glob('*.py'))])"
    )
    command = [PYTHONS[version], "-c", probe]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([code_digests(script) for script in SCRIPTS])


# Packages


def with_versions(folder: Path, versions: Mapping[str, str]) -> Path:
    """A folder of packages that seem to have other versions."""
    for name, version in versions.items():
        record = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        record.mkdir(parents=True)
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


def pinned() -> set[str]:
    lines = (REPOSITORY / "envs/requirements.txt").read_text().splitlines()
    return {line.split("==")[0] for line in lines if "==" in line}


def test_every_package_that_can_change_a_number_has_a_row() -> None:
    promised = promised_stages("package")
    assert promised.keys() == set(NUMERICAL_PACKAGES.values()) <= {name.lower() for name in pinned()}
    stages = scripts_of_stages()
    for name, promise in promised.items():
        assert {stage for stage in stages if name in fingerprint.package_versions(*stages[stage])} == promise, name


@pytest.mark.parametrize(
    "name", ["clean-fid", *(pytest.param(name, marks=pytest.mark.slow) for name in promised_stages("package"))]
)
def test_another_version_of_a_package_rebuilds_the_stages_that_the_page_names(
    name: str, complete: CompleteStudies, tmp_path: Path
) -> None:
    assert_only_rebuilds(promised_stages("package")[name], complete, with_versions(tmp_path, {name: "99.0.0"}))


def test_another_version_of_a_package_that_computes_no_number_rebuilds_nothing(
    complete: CompleteStudies, tmp_path: Path
) -> None:
    others = pinned() - set(NUMERICAL_PACKAGES.values()) - {name for name in pinned() if "snakemake" in name}
    assert len(others) > 50
    assert complete.would_build(with_versions(tmp_path, dict.fromkeys(sorted(others), "99.0.0"))) == set()


# Assets


@pytest.mark.parametrize(
    "name", ["object_classifier", *(pytest.param(name, marks=pytest.mark.slow) for name in LOCKED)]
)
def test_another_asset_rebuilds_what_reads_it(name: str, complete: CompleteStudies) -> None:
    promised = {asset.strip("`"): readers for asset, readers in tables_of_page()["locked asset"]}
    complete.checkout.lock(other=name)
    try:
        found = complete.would_build()
    finally:
        complete.checkout.lock()
    papers = complete.planned_studies["papers"]
    built = papers.built_on(papers.readers(promised.get(name, NOTHING), {}))
    products = {run.name: f"results/papers/{product}" for product, run in papers.products.items()}
    wanted = {complete._without_digest(products.get(run, run)) for run in built}
    visited = complete.of_stages(WAITING) if wanted else set()
    assert wanted <= found and found - visited <= wanted


# Changes that rebuild nothing


def test_changes_of_rules_and_profiles_rebuild_nothing(complete: CompleteStudies) -> None:
    folder = complete.checkout.folder
    edits = [
        ("rules/unlearning.smk", "    threads:", "    priority: 3\n    threads:"),
        ("rules/sampling.smk", '"""Sample one shard', '"""Sample some shard'),
        ("Snakefile", "# Every table", "# Each table"),
        ("profiles/default/config.yaml", "nolock: true", "nolock: true\nkeep-going: true"),
        ("slurm/site.yaml", "seconds", "# nothing new\nseconds"),
        ("envs/core.yaml", "channels", "# another comment\nchannels"),
    ]
    before = {name: (folder / name).read_text() for name, _, _ in edits}
    try:
        for name, old, new in edits:
            assert old in before[name], f"{name} has no {old!r}"
            (folder / name).write_text(before[name].replace(old, new, 1))
        assert complete.would_build() == set()
    finally:
        for name, text in before.items():
            (folder / name).write_text(text)


def test_a_change_of_published_numbers_rebuilds_only_the_products_that_show_them(
    complete: CompleteStudies,
) -> None:
    path = complete.checkout.folder / "config/published.csv"
    before = path.read_text()
    try:
        path.write_text(re.sub(r"(?m)^table3,.*$\n", "", before, count=1))
        found = complete.would_build()
    finally:
        path.write_text(before)
    studies, products = ("papers", "miniatures", "mini"), ("table3", "charts3")
    assert found == {("results", f"{study}/{product}") for study in studies for product in products}


# The checks themselves

VIOLATIONS = {
    "a leaf left out of the digest": (
        "corelib/study/plan.py",
        "draw=study.anchoring.draw if",
        'draw="pair" if',
        "anchoring.draw",
        "anchoring.draw: is not built anew, though it should be: ",
    ),
    "a leaf too much in the digest": (
        "corelib/study/plan.py",
        "learning_rate=recipe.learning_rate * study",
        "learning_rate=recipe.learning_rate * study.sampling.guidance_scale * study",
        "sampling.guidance_scale",
        "sampling.guidance_scale: is built anew, though it should not be: ",
    ),
}


@pytest.mark.parametrize("kind", VIOLATIONS)
def test_a_leaf_in_the_wrong_digest_is_noticed(kind: str, tmp_path: Path) -> None:
    file, old, new, leaf, message = VIOLATIONS[kind]
    copy = repository_with(tmp_path, file, old, new)
    program = (
        "import sys; sys.path[:0] = ['tests', '.']\n"
        "from pathlib import Path; from support.contract import cases_of, check, prepare_checkout\n"
        f"_, _, leaves = prepare_checkout(Path('to-read'), 'leaf')\n"
        f"leaves = [leaf for leaf in leaves if leaf[0] == {tuple(leaf.split('.'))!r}]\n"
        "print(*check(Path('clone'), 'leaf', cases_of('leaf', leaves)), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=copy, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(message), done.stdout + done.stderr


MODULE_TESTS = (
    "test_the_digest_of_a_stage_covers_the_modules_that_the_page_names or "
    "test_every_module_has_a_row_and_every_row_a_module"
)
IMPORTS = "from corelib.runs.stage_context import Stage"


@pytest.mark.parametrize(
    ("file", "old", "new", "tests", "message"),
    [
        pytest.param(
            "corelib/runs/fingerprint.py",
            '        "corelib.runs.job",\n',
            '        "corelib.runs.job",\n        "corelib.unlearning.objective",\n',
            MODULE_TESTS,
            "'unlearning.objective'",
            id="a module left out",
        ),
        pytest.param(
            "corelib/unlearning/trainer.py",
            IMPORTS,
            f"from corelib.reports.tables import to_csv as to_csv\n{IMPORTS}",
            MODULE_TESTS,
            "'reports.tables'",
            id="a module too much",
        ),
        pytest.param(
            "corelib/unlearning/trainer.py",
            IMPORTS,
            f"from corelib.newer import something\n{IMPORTS}",
            MODULE_TESTS,
            "'newer'",
            id="a module of which the page says nothing",
        ),
        pytest.param(
            "corelib/study/plan.py",
            '            "latents": self.latents(),\n',
            "",
            "test_runs_build_on_the_stages_that_the_page_names_and_on_no_others and tiny",
            "does not build on `latents`",
            id="an input left out",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_violation_of_the_contract_fails(
    file: str, old: str, new: str, tests: str, message: str, tmp_path: Path
) -> None:
    copy = repository_with(tmp_path, file, old, new)
    if "newer" in new:
        (copy / "corelib/newer.py").write_text('"""New."""\n\nsomething = 1\n')
    # -vv: otherwise pytest shows only some entries of a difference of sets
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-vv",
        "tests/workflow/test_reruns.py",
        "-k",
        tests,
    ]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert message in done.stdout, done.stdout[-3000:]


def repository_with(folder: Path, file: str, old: str, new: str) -> Path:
    """A copy of the repository with one edit."""
    copy = folder / "repository"
    Checkout.at(copy)
    for name in ("tests", "docs"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", copy)
    Checkout(copy).edit(file, old, new)
    return copy


def test_a_leaf_without_a_row_fails() -> None:
    with pytest.raises(AssertionError, match=r"says nothing of the leaf training\.momentum"):
        cases_of("leaf", [(("training", "momentum"), 0.9)])
