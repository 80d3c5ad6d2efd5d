"""Everything that a page names exists: files, names in the code, links and their anchors, targets of make, commands."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]

FILE = re.compile(r"(corelib|tests|rules|workflow_scripts|config|slurm|profiles|envs|benchmarks|docs)/[\w./-]+")
MADE = {"config/assets.lock.json"}
"""Files that commands write."""

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def code_spans(page: Path) -> list[str]:
    """The code spans in a page's text, each on one line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def commands(page: Path) -> list[str]:
    """The commands in a page's blocks of type console, without prompt and comment."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [
        line.strip().removeprefix("$ ").split(" #")[0].strip()
        for block in blocks
        for line in block.splitlines()
        if line.strip().startswith("$ ")
    ]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def names_in(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """The names that a module or class defines: functions, classes, and names that are assigned or imported."""
    found: dict[str, ast.stmt] = {}
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found[name] = node
            case ast.Assign(targets=targets):
                names = [name for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
                found |= {name.id: node for name in names}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = node
            case ast.ImportFrom(names=aliases):
                found |= {alias.asname or alias.name: node for alias in aliases}
    return found


def exists(dotted: str) -> bool:
    """Whether `corelib.x.y.NAME` is a module, or a name in one, or an attribute of a class in one."""
    path, parts = REPOSITORY / "corelib", dotted.split(".")[1:]
    while parts and (path / parts[0]).is_dir():
        path /= parts.pop(0)
    if not parts:
        return (path / "__init__.py").exists()
    module = path / f"{parts.pop(0)}.py"
    if not module.exists():
        return False
    body: list[ast.stmt] = ast.parse(module.read_text(encoding="utf-8")).body
    for part in parts:
        if part not in (known := names_in(body)):
            return False
        node = known[part]
        body = node.body if isinstance(node, ast.ClassDef) else []
    return True


@every_page
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = [span for span in code_spans(page) if FILE.fullmatch(span) and not re.search(r"[A-Z]{4,}", span)]
    made = {*MADE, *re.findall(r"`([\w/.]+)` \(new\):", page.read_text())}
    assert [name for name in named if name not in made and not (REPOSITORY / name).exists()] == []


@every_page
def test_every_name_in_the_code_that_a_page_mentions_exists(page: Path) -> None:
    named = [name for span in code_spans(page) for name in re.findall(r"(?<![\w/.-])corelib(?:\.\w+)+", span)]
    files = {name for name in named if name.endswith(".py")}
    assert [name for name in named if name not in files and not exists(name)] == []


def test_names_that_do_not_exist_are_found() -> None:
    assert exists("corelib.runs.run.Run.digest")
    assert exists("corelib.unlearning")
    absent = ("corelib.nothing", "corelib.runs.nothing", "corelib.runs.run.nothing", "corelib.runs.run.Run.nothing")
    assert not any(map(exists, absent))


@every_page
def test_every_relative_link_of_a_page_has_a_target(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@every_page
def test_every_target_of_make_that_a_page_names_exists(page: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    calls = [line for line in (*commands(page), *code_spans(page)) if re.match(r"make\b(?!:)", line)]
    named = [word for line in calls for word in line.split()[1:] if "=" not in word]
    assert [name for name in named if name not in targets] == []


@pytest.fixture(scope="module")
def known_commands() -> list[str]:
    """The commands of `python -m corelib`."""
    command = [sys.executable, "-m", "corelib", "--help"]
    output = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    listed = re.search(r"\{([\w,\s]+)\}", output)
    assert listed, output
    return re.split(r",\s*", listed[1])


@every_page
def test_every_command_of_corelib_that_a_page_names_exists(page: Path, known_commands: list[str]) -> None:
    lines = [*commands(page), *code_spans(page)]
    named = [name for line in lines for name in re.findall(r"-m corelib (\w+)", line)]
    assert [name for name in named if name not in {*known_commands, "COMMAND"}] == []


def test_the_index_lists_every_page_once() -> None:
    index = REPOSITORY / "docs/README.md"
    linked = re.findall(r"^\| \[[^\]]+\]\(([\w-]+\.md)\)", index.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(linked) == sorted(page.name for page in PAGES if page.parent == index.parent and page != index)
