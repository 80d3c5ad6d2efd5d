"""The architecture of the library: the order of its packages, and rules for its files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from corelib.runs.fingerprint import code_digests, package_versions
from corelib.version import VERSION

REPOSITORY = Path(__file__).resolve().parent.parent
MODULES = sorted((REPOSITORY / "corelib").rglob("*.py"))
SCRIPTS = sorted((REPOSITORY / "workflow_scripts").glob("*.py"))
RULE_FILES = sorted((REPOSITORY / "rules").glob("*.smk"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("corelib"):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("corelib")}
    return found & {name_of(module) for module in MODULES}


LAYERS = [
    *("errors", "randomness", "source_import", "version"),
    *("settings", "files", "runs", "models", "worlds", "data", "sampling", "unlearning", "probes"),
    *("evaluation", "reports"),
    *("study", "in_memory", "library", "costs", "cluster", "maintenance", "commands", "workflow"),
]
"""Each imports only those before it."""


def layer_of(module: str) -> str:
    return module.split(".")[1]


def test_a_layer_imports_only_those_before_it() -> None:
    wrong = []
    for path in MODULES:
        module = name_of(path)
        if module in ("corelib", "corelib.__main__"):
            continue
        above = LAYERS[LAYERS.index(layer_of(module)) + 1 :]
        wrong += [f"{module} imports {name}" for name in imports_of(path) if layer_of(f"{name}.") in above]
    assert wrong == []


def test_the_workflow_imports_no_command() -> None:
    paths = [path for path in MODULES if layer_of(f"{name_of(path)}.") == "workflow"]
    assert not {name for path in paths for name in imports_of(path) if name.startswith("corelib.commands")}


def test_there_are_no_circular_imports() -> None:
    below = {name_of(module): imports_of(module) for module in MODULES}
    left = dict(below)
    while left:
        free = {name for name, needed in left.items() if not needed & left.keys()}
        assert free, f"circular imports among {sorted(left)}"
        left = {name: needed for name, needed in left.items() if name not in free}


def test_no_module_imports_private_names() -> None:
    private = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("corelib"):
                private += [f"{name_of(path)}: {alias.name}" for alias in node.names if alias.name.startswith("_")]
    assert private == []


def test_every_package_file_contains_only_a_docstring() -> None:
    for path in MODULES:
        if path.name == "__init__.py" and path.parent.name != "corelib":
            tree = ast.parse(path.read_text())
            assert len(tree.body) == 1 and ast.get_docstring(tree), path


@pytest.mark.parametrize("word", ["utils", "helpers", "common", "misc"])
def test_no_file_has_a_catch_all_name(word: str) -> None:
    assert [path for path in [*MODULES, *RULE_FILES, *SCRIPTS] if word in path.stem] == []


def test_the_snakefile_is_short() -> None:
    assert len((REPOSITORY / "Snakefile").read_text().splitlines()) < 80


@pytest.mark.parametrize("path", RULE_FILES, ids=lambda path: path.stem)
def test_a_rule_file_is_short_and_begins_with_its_inputs_and_outputs(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 150
    assert re.match(r"# .+\n# In:  .+\n(# .+\n)*# Out: .+\n", text)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_imports_and_one_call(path: Path) -> None:
    statements = ast.parse(path.read_text()).body
    work = [node for node in statements if not isinstance(node, ast.Import | ast.ImportFrom)]
    assert len(work) <= 2
    assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If | ast.For) for node in work)


def test_every_script_belongs_to_a_rule_and_every_rule_to_a_script() -> None:
    named = set(re.findall(r'"\.\./workflow_scripts/(\w+)\.py"', "".join(path.read_text() for path in RULE_FILES)))
    assert named == {path.stem for path in SCRIPTS}


def test_planning_never_imports_torch() -> None:
    modules = "corelib.workflow.catalogue, corelib.study.plan, corelib.commands.cli"
    probe = f"import sys; import {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], cwd=REPOSITORY, check=False).returncode == 0


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_no_stage_depends_on_the_reading_or_planning_of_studies(path: Path) -> None:
    """Otherwise a new key in the configuration would retrain every model."""
    above = LAYERS[LAYERS.index("study") :]
    modules = [name for name in code_digests(path) if name.startswith("corelib.")]
    assert [name for name in modules if layer_of(f"{name}.") in above or name == "corelib.runs.job"] == []


def test_importing_the_package_does_not_import_torch() -> None:
    probe = "import sys; import corelib; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], cwd=REPOSITORY, check=False).returncode == 0


def test_tables_depend_on_no_training_code() -> None:
    modules = [
        name for name in code_digests(REPOSITORY / "workflow_scripts/tabulate.py") if name.startswith("corelib.")
    ]
    assert not {"models", "data", "sampling", "unlearning"} & {layer_of(f"{name}.") for name in modules}
    assert "torch" not in package_versions(REPOSITORY / "workflow_scripts/tabulate.py")


def test_every_public_function_has_a_docstring() -> None:
    undocumented = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            is_public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if is_public and ast.get_docstring(node) is None and not _is_local(node, path):
                undocumented.append(f"{name_of(path)}.{node.name}")
    assert undocumented == []


def _is_local(node: ast.AST, path: Path) -> bool:
    """Whether a function is defined inside another one."""
    for other in ast.walk(ast.parse(path.read_text())):
        if isinstance(other, ast.FunctionDef):
            for child in ast.walk(other):
                if child is not other and getattr(child, "lineno", None) == getattr(node, "lineno", -1):
                    return True
    return False


def test_every_file_names_the_same_version() -> None:
    content = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert "version" not in content["project"]
    assert content["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "corelib.version.VERSION"}
    assert f"\nversion: {VERSION}\n" in (REPOSITORY / "CITATION.cff").read_text()
    assert re.search(rf"^## {re.escape(VERSION)}\b", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
