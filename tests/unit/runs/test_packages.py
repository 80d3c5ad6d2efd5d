"""A job imports the packages that its address names, or stops with one sentence."""

from __future__ import annotations

import ast
import base64
import hashlib
import importlib.metadata
import re
import shutil
import sysconfig
from pathlib import Path

import pytest
from support.checkout import REPOSITORY, Checkout
from support.toy_job import Toy, toy_at

from corelib.runs.packages import FORBIDDEN_PACKAGES

INSTALLED = Path(sysconfig.get_path("purelib"))
TIMM = f"timm {importlib.metadata.version('timm')}"

RENDER = ("--cores", "1", "results/tiny/table1.csv", "--until", "render_images")


def assert_refused(toy: Toy, *texts: str) -> None:
    """Assert that the job stops with one sentence that contains these texts, and writes no manifest."""
    assert toy.run() == 1
    (sentence,) = [line for line in toy.log.splitlines() if "Error: " in line]
    assert all(part in sentence for part in texts), sentence
    assert "Traceback" not in toy.log and not (toy.folder / "manifest.json").exists()


def edited_copy(name: str, place: Path) -> Path:
    """A source tree of an installed package without its metadata, as in a clone of its repository."""
    copy = place / name
    shutil.copytree(INSTALLED / name, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "__init__.py").write_text((copy / "__init__.py").read_text() + "\nEDITED = True\n")
    return copy


# The user's PYTHONPATH, and other places that come first


def test_a_source_tree_on_the_users_pythonpath_is_not_imported(tmp_path: Path) -> None:
    edited_copy("safetensors", tmp_path / "users")
    toy = toy_at(tmp_path, first="import safetensors\nassert not hasattr(safetensors, 'EDITED')\n")
    toy.variables = {"PYTHONPATH": str(tmp_path / "users"), "PYTHONUSERBASE": str(tmp_path / "users")}
    assert toy.run() == 0, toy.log


def test_snakemake_starts_its_scripts_without_the_users_pythonpath(tmp_path: Path) -> None:
    clone = Checkout.at(tmp_path / "clone")
    users = tmp_path / "users/PIL"
    users.mkdir(parents=True)
    (users / "__init__.py").write_text("raise ImportError('the copy of the user')\n")
    done = clone.python("-m", "snakemake", *RENDER, timeout=300, PYTHONPATH=str(users.parent))
    assert done.returncode == 0, done.stdout[-3000:]


def test_planning_uses_the_package_versions_of_jobs_in_spite_of_the_users_pythonpath(tmp_path: Path) -> None:
    record = tmp_path / "numpy-0.1.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.1\n")
    probe = (
        "from pathlib import Path; from corelib.workflow.catalogue import _prepare_environment; "
        "_prepare_environment(Path.cwd());"
        "from corelib.runs.run import package_versions; "
        "print(package_versions(Path('workflow_scripts/render.py'))['numpy'])"
    )
    clone = Checkout(REPOSITORY)
    assert clone.python("-c", probe, PYTHONPATH=str(tmp_path)).stdout == clone.python("-c", probe).stdout != "0.1\n"
    command = ("-m", "corelib", "plan", "results/tiny/table1.csv")
    assert clone.python(*command, PYTHONPATH=str(tmp_path)).stdout == clone.python(*command).stdout


@pytest.mark.parametrize("name", ["PIL", "safetensors"])
def test_a_copy_of_a_package_that_is_found_first_is_refused(name: str, tmp_path: Path) -> None:
    """A `.pth` file, an editable install or `sitecustomize` may add its folder to `sys.path`."""
    copy = edited_copy(name, tmp_path / "elsewhere")
    assert_refused(
        toy_at(tmp_path, first=f"import sys\nsys.path.insert(0, {str(copy.parent)!r})\nimport {name}\n"),
        str(copy / "__init__.py"),
        name,
        "remove",
    )


def test_a_copy_that_the_stage_imports_while_it_runs_is_refused_too(tmp_path: Path) -> None:
    copy = edited_copy("safetensors", tmp_path / "elsewhere")
    statements = f"import sys\nsys.path.insert(0, {str(copy.parent)!r})\nimport safetensors\n"
    assert_refused(toy_at(tmp_path, meanwhile=statements), str(copy / "__init__.py"), "safetensors")


@pytest.mark.parametrize("name", ["timm.py", "timm/__init__.py", "csv.py", "tqdm.py"])
def test_a_file_beside_the_snakefile_that_hides_a_package_is_refused(name: str, tmp_path: Path) -> None:
    clone = Checkout.at(tmp_path / "clone")
    imported = name.partition("/")[0].removesuffix(".py")
    toy = toy_at(tmp_path, first=f"import sys\nsys.path.insert(0, {str(clone.folder)!r})\nimport {imported}\n")
    (clone.folder / name).parent.mkdir(exist_ok=True)
    (clone.folder / name).write_text("__version__ = '0'\nreader = writer = tqdm = None\n")
    assert_refused(toy, str(clone.folder / name), imported, "remove")


# Files of the environment


def installed_copy(name: str, place: Path, **files: str) -> Path:
    """A small package with metadata as written by an installer, which is imported instead of the real one."""
    root = place / "site-packages"
    version = importlib.metadata.version(name)
    record = root / f"{name}-{version}.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (root / name).mkdir()
    (root / name / "__init__.py").write_text("VALUE = 1\n")
    for file, text in files.items():
        (record / file.replace("_json", ".json")).write_text(text)
    content = (root / name / "__init__.py").read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    (record / "RECORD").write_text(f"{name}/__init__.py,sha256={digest},{len(content)}\n")
    return root


def import_statements(root: Path, name: str) -> str:
    return f"import sys\nsys.path.insert(0, {str(root)!r})\nimport {name}\n"


def test_an_unchanged_installed_package_is_accepted(tmp_path: Path) -> None:
    root = installed_copy("timm", tmp_path)
    toy = toy_at(tmp_path, first=import_statements(root, "timm"))
    assert toy.run() == 0, toy.log


@pytest.mark.parametrize("text", ["VALUE = 22\n", "VALUE = 2\n"], ids=["another size", "the same size"])
def test_an_edited_file_of_an_installed_package_is_refused(text: str, tmp_path: Path) -> None:
    root = installed_copy("timm", tmp_path)
    (root / "timm/__init__.py").write_text(text)
    assert_refused(
        toy_at(tmp_path, first=import_statements(root, "timm")),
        str(root / "timm/__init__.py"),
        TIMM,
        "pip install",
    )


@pytest.mark.parametrize("kind", ['"dir_info": {"editable": true}', '"dir_info": {}', '"vcs_info": {"vcs": "git"}'])
def test_a_package_from_a_folder_or_a_repository_is_refused(kind: str, tmp_path: Path) -> None:
    """Its version does not identify its code."""
    root = installed_copy("timm", tmp_path, direct_url_json=f'{{"url": "file:///home/user/timm", {kind}}}')
    assert_refused(
        toy_at(tmp_path, first=import_statements(root, "timm")),
        TIMM,
        "file:///home/user/timm",
        "its own version",
    )


def test_a_package_without_a_list_of_its_files_is_refused(tmp_path: Path) -> None:
    root = installed_copy("timm", tmp_path)
    next(root.glob("timm-*.dist-info/RECORD")).unlink()
    assert_refused(toy_at(tmp_path, first=import_statements(root, "timm")), TIMM, "RECORD")


def test_a_compiled_library_that_is_preloaded_is_refused(tmp_path: Path) -> None:
    library = tmp_path / "lib/libgomp.so.1"
    library.parent.mkdir()
    shutil.copy(INSTALLED / "torch/lib/libgomp.so.1", library)
    toy = toy_at(tmp_path)
    toy.variables = {"LD_PRELOAD": str(library)}
    assert_refused(toy, str(library), "LD_PRELOAD")


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(path, id=path.stem, marks=() if path.stem in ("sample", "unlearn") else pytest.mark.slow)
        for path in sorted((REPOSITORY / "workflow_scripts").glob("*.py"))
    ],
)
def test_every_import_of_a_script_comes_from_the_environment(script: Path, tmp_path: Path) -> None:
    imports = [node for node in ast.parse(script.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    program = "\n".join(
        [*map(ast.unparse, imports), "from corelib.runs.packages import check_packages", "check_packages()"]
    )
    done = Checkout(REPOSITORY).python("-c", program)
    assert done.returncode == 0, done.stdout


# Packages that others use automatically


def rows_about_packages() -> list[str]:
    page = (REPOSITORY / "docs/variables.md").read_text().partition("## Packages")[2]
    return re.findall(r"^\| [^|`]+ \| `(\w+)` \|", page, re.MULTILINE)


def test_the_page_lists_the_packages_that_are_refused() -> None:
    assert sorted(rows_about_packages()) == sorted(FORBIDDEN_PACKAGES)


@pytest.mark.parametrize("name", rows_about_packages())
def test_a_package_that_others_use_automatically_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "extra/site-packages" / name).mkdir(parents=True)
    (tmp_path / "extra/site-packages" / name / "__init__.py").write_text("__version__ = '99.0'\n")
    first = f"import sys\nsys.path.append({str(tmp_path / 'extra/site-packages')!r})\n"
    assert_refused(toy_at(tmp_path, first=first), f"the package {name} is installed", "uninstall it")
