"""Digests of the code that a script imports, and versions of the packages with which it computes."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import sys
from pathlib import Path
from typing import Any, TypeGuard

from corelib.errors import ConfigurationError
from corelib.files.hashing import sha256_of_text
from corelib.source_import import source_file

UNCOUNTED_MODULES = frozenset(
    {
        "corelib.runs.job",
        "corelib.runs.progress",
        "corelib.models.config_checks",
        "corelib.models.model_inspection",
        "corelib.worlds.assets.asset_inspection",
    }
)
"""Modules that scripts import to read their specification, to log, to record provenance, and to inspect assets before
use. They compute no number, so they are not content. Neither are their imports, unless a stage imports those too.
"""

NUMERICAL_PACKAGES = {
    "PIL": "pillow",
    "accelerate": "accelerate",
    "cleanfid": "clean-fid",
    "diffusers": "diffusers",
    "matplotlib": "matplotlib",
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
"""Packages whose version can change a number or a chart: the distribution, by import name."""

NUMERICAL_REQUIREMENTS = {
    "accelerate": ("numpy", "safetensors", "torch"),
    "clean-fid": ("numpy", "pillow", "scipy", "torch", "torchvision"),
    "diffusers": ("numpy", "pillow", "safetensors", "torch"),
    "matplotlib": ("numpy", "pillow"),
    "pandas": ("numpy", "pyarrow"),
    "scipy": ("numpy",),
    "timm": ("safetensors", "torch", "torchvision"),
    "torch": ("numpy",),
    "torchvision": ("numpy", "pillow", "torch"),
    "transformers": ("numpy", "safetensors", "tokenizers", "torch"),
}
"""For each numerical package, the others that it computes with.

The table is written by hand, although `importlib.metadata` has the declared requirements of each distribution: torch
does not declare numpy, diffusers and transformers declare torch as an extra, and pandas declares pyarrow as an extra.
Without these four entries, a stage that imports only pandas would not be rebuilt with another pyarrow. Besides, an
address must not depend on how a distribution of the same version was packaged. A test checks that the table contains
all declared requirements.
"""


@functools.cache
def code_digests(*scripts: Path) -> dict[str, str]:
    """The digest of each script and of each library module in their import closure."""
    modules = _closure(*scripts)
    return {name: _digest(path) for name, path in modules.items()}


@functools.cache  # most modules belong to several scripts
def _digest(path: Path) -> str:
    """The sha256 of the code of a file."""
    return sha256_of_text(_unparse(_tree(path)))


@functools.cache
def digest_of_modules(*names: str) -> str:
    """The sha256 of the code of library modules, without their imports, so that moved imports do not change it."""
    paths = [path for name in names if (path := source_file(name)) is not None]
    statements = [
        node for path in paths for node in _tree(path).body if not isinstance(node, ast.Import | ast.ImportFrom)
    ]
    return sha256_of_text(_unparse(statements))


@functools.cache
def package_versions(*scripts: Path) -> dict[str, str]:
    """The versions of the numerical packages with which the code of scripts computes, without local build tags.

    Raises `ConfigurationError` if one of them is not installed.
    """
    imported = {name.split(".")[0] for path in _closure(*scripts).values() for name in _imports(path)}
    queue = [NUMERICAL_PACKAGES[name] for name in imported & NUMERICAL_PACKAGES.keys()]
    packages: set[str] = set()
    while queue:
        name = queue.pop()
        if name not in packages:
            packages.add(name)
            queue.extend(NUMERICAL_REQUIREMENTS.get(name, ()))
    return {name: _version(name) for name in sorted(packages)}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        raise ConfigurationError(
            f"{sys.prefix}: the package {package} is not installed there, expected the environment of `make env`; run "
            "it again after an update of the clone."
        ) from None


@functools.cache
def _closure(*scripts: Path) -> dict[str, Path]:
    """The import closure of scripts: the scripts, by file name, and all library modules that they import, sorted."""
    modules: dict[str, Path] = {script.name: script for script in scripts}
    queue = list(scripts)
    while queue:
        for name in _imports(queue.pop()):
            path = source_file(name)
            if path is not None and name not in modules and name not in UNCOUNTED_MODULES:
                modules[name] = path
                queue.append(path)
    return dict(sorted(modules.items()))


@functools.cache
def _imports(path: Path) -> frozenset[str]:
    """Every module that a file may import, at any level of nesting; `from a import b` gives `a` and `a.b`.

    Imports under `TYPE_CHECKING` never run, so they do not count.
    """
    names: set[str] = set()
    for node in _walk_without_type_checking(_tree(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise SyntaxError(f"{path}: relative imports are not supported here; import the module by its full name")
    return frozenset(names)


def _walk_without_type_checking(tree: ast.AST) -> list[ast.AST]:
    nodes = [tree]
    for child in tree.orelse if _is_for_type_checkers(tree) else ast.iter_child_nodes(tree):
        nodes += _walk_without_type_checking(child)
    return nodes


def _is_for_type_checkers(tree: ast.AST) -> TypeGuard[ast.If]:
    return isinstance(tree, ast.If) and isinstance(tree.test, ast.Name) and tree.test.id == "TYPE_CHECKING"


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _unparse(node: Any) -> str:
    """A syntax tree as text, without docstrings; the same text in every version of Python.

    `ast.unparse` writes f-strings differently since Python 3.12, and `ast.dump` includes fields that only some versions
    have. This function omits empty fields.
    """
    if isinstance(node, list):
        return "[" + ",".join(_unparse(entry) for entry in node if not _is_docstring(entry)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []) and name != "kind")
    arguments = ",".join(f"{name}={_unparse(value)}" for name, value in fields)
    return f"{type(node).__name__}({arguments})"


def _is_docstring(entry: Any) -> bool:
    """Whether a statement is a bare string: a docstring, or the description below an attribute."""
    return isinstance(entry, ast.Expr) and isinstance(entry.value, ast.Constant) and isinstance(entry.value.value, str)
