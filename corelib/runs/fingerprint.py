"""Digests of the code that a script imports, and the versions of the packages that it computes with."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
from pathlib import Path
from typing import Any, TypeGuard

from corelib.files.hashing import sha256_of_text
from corelib.sources import file_of

HARNESS = frozenset(
    {
        "corelib.runs.job",
        "corelib.runs.progress",
        "corelib.models.compatibility",
        "corelib.models.inspection",
        "corelib.worlds.unlearn_canvas.asset_inspection",
    }
)
"""What scripts import to find their specification, to log, to record provenance, and to inspect assets before they are
used. It computes no number, so it is no content; nor is what it imports in its turn, unless a stage imports that too.
"""

NUMERICAL_PACKAGES = {
    "PIL": "pillow",
    "accelerate": "accelerate",
    "cleanfid": "clean-fid",
    "diffusers": "diffusers",
    "numpy": "numpy",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "timm": "timm",
    "tokenizers": "tokenizers",
    "torch": "torch",
    "torchvision": "torchvision",
    "transformers": "transformers",
}
"""Import names and distributions whose version can change a number."""

COMPUTES_WITH = {
    "accelerate": ("numpy", "safetensors", "torch"),
    "clean-fid": ("numpy", "pillow", "scipy", "torch", "torchvision"),
    "diffusers": ("numpy", "pillow", "safetensors", "torch"),
    "pandas": ("numpy", "pyarrow"),
    "scipy": ("numpy",),
    "timm": ("safetensors", "torch", "torchvision"),
    "torch": ("numpy",),
    "torchvision": ("numpy", "pillow", "torch"),
    "transformers": ("numpy", "safetensors", "tokenizers", "torch"),
}
"""The packages among them that others of them compute with.

A table, though `importlib.metadata` has the requirements that each distribution declares: torch declares no numpy,
diffusers and transformers declare torch as an extra, and pandas pyarrow. Without these four a stage that imports only
pandas would not be built anew with another pyarrow. Nor may an address depend on how a distribution of the same version
was packaged. What is declared is in the table, and a test compares.
"""


@functools.cache
def code_of(*scripts: Path) -> dict[str, str]:
    """The digest of each script and of each library module in their import closure."""
    modules = _closure(*scripts)
    return {name: sha256_of_text(_written_out(_tree(path))) for name, path in modules.items()}


@functools.cache
def digest_of_modules(*names: str) -> str:
    """One sha256 over the code of library modules without their imports: a module may be moved or split elsewhere."""
    paths = [path for name in names if (path := file_of(name)) is not None]
    statements = [
        node for path in paths for node in _tree(path).body if not isinstance(node, ast.Import | ast.ImportFrom)
    ]
    return sha256_of_text(_written_out(statements))


@functools.cache
def packages_of(*scripts: Path) -> dict[str, str]:
    """The versions of the numerical packages that the code of scripts computes with, without local build tags."""
    imported = {name.split(".")[0] for path in _closure(*scripts).values() for name in _imports(path)}
    queue = [NUMERICAL_PACKAGES[name] for name in imported & NUMERICAL_PACKAGES.keys()]
    found: set[str] = set()
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            queue.extend(COMPUTES_WITH.get(name, ()))
    return {name: importlib.metadata.version(name).split("+")[0] for name in sorted(found)}


@functools.cache
def _closure(*scripts: Path) -> dict[str, Path]:
    """The scripts (under their file names) and every library module that they reach, sorted by name."""
    found: dict[str, Path] = {script.name: script for script in scripts}
    queue = list(scripts)
    while queue:
        for name in _imports(queue.pop()):
            path = file_of(name)
            if path is not None and name not in found and name not in HARNESS:
                found[name] = path
                queue.append(path)
    return dict(sorted(found.items()))


@functools.cache
def _imports(path: Path) -> frozenset[str]:
    """Every module that a file may import, wherever the statement stands; `from a import b` names `a` and `a.b`.

    Imports for type checkers alone never run, so they do not count.
    """
    names: set[str] = set()
    for node in _walk_without_type_checking(_tree(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise SyntaxError(f"{path}: a relative import, which the import closure does not follow")
    return frozenset(names)


def _walk_without_type_checking(tree: ast.AST) -> list[ast.AST]:
    found = [tree]
    for child in tree.orelse if _is_for_type_checkers(tree) else ast.iter_child_nodes(tree):
        found += _walk_without_type_checking(child)
    return found


def _is_for_type_checkers(tree: ast.AST) -> TypeGuard[ast.If]:
    return isinstance(tree, ast.If) and isinstance(tree.test, ast.Name) and tree.test.id == "TYPE_CHECKING"


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _written_out(node: Any) -> str:
    """A syntax tree as text, without docstrings.

    `ast.unparse` writes f-strings in another way since Python 3.12, and `ast.dump` knows fields that are new in some
    version; here a field that says nothing is left out.
    """
    if isinstance(node, list):
        return "[" + ",".join(_written_out(entry) for entry in node if not _is_text(entry)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []) and name != "kind")
    said = ",".join(f"{name}={_written_out(value)}" for name, value in fields)
    return f"{type(node).__name__}({said})"


def _is_text(entry: Any) -> bool:
    """A string standing alone: a docstring, or the description below an attribute."""
    return isinstance(entry, ast.Expr) and isinstance(entry.value, ast.Constant) and isinstance(entry.value.value, str)
