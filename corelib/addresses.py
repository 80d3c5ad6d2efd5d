"""The address of a result is its content.

A run lies in `runs/STAGE/SLUG-DIGEST/`. The digest is taken over the leaves that the stage reads, its thread count,
the code it imports, the versions of the numerical packages that this code uses, and the addresses of what it builds
on. Code counts as its syntax tree without docstrings: comments and formatting are not content, and no version of Python
writes the tree in another way.
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

from corelib.artefacts import MANIFEST, Manifest, has_its_seal, read_json, read_manifest, sealed, sha256_of_text
from corelib.errors import ArtefactError
from corelib.settings.section import Section
from corelib.sources import file_of

RUNS, RESULTS = Path("runs"), Path("results")
SPECIFICATION = "specification.json"

RUN = re.compile(r"[a-z0-9_]+/[a-z0-9_-]+-[0-9a-f]{12}")
"""What the name of a run is like."""

PARTS = {
    **dict.fromkeys(("stage", "slug", "digest"), str),
    **dict.fromkeys(("settings", "code", "packages", "inputs", "builds_on", "execution"), dict),
    "threads": int,
}
"""Of a specification."""

TRAINED = ("autoencoder", "pipeline", "classifier", "unlearning")
"""The stages whose result is a model that is trained here. Made again at the same address, on another device say, it is
another model, and what was made of the old one does not belong to it. All else is, up to rounding, what it was."""

HARNESS = frozenset({"corelib.jobs", "corelib.progress", "corelib.worlds.inspection", "corelib.worlds.oddities"})
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
    "accelerate": ("torch",),
    "clean-fid": ("numpy", "pillow", "scipy", "torch", "torchvision"),
    "diffusers": ("numpy", "pillow", "safetensors", "torch"),
    "pandas": ("numpy", "pyarrow"),
    "scipy": ("numpy",),
    "timm": ("torch", "torchvision"),
    "torch": ("numpy",),
    "torchvision": ("numpy", "pillow", "torch"),
    "transformers": ("numpy", "safetensors", "tokenizers", "torch"),
}
"""The packages among them that others of them compute with."""


@dataclass(frozen=True)
class Run:
    """One stage of the study with everything that decides its result.

    Attributes:
        stage: the name of the stage, and of its folder below `runs/`.
        scripts: those of its rules, whose import closure is the stage's code.
        slug: what it is, in words; part of the address for people, not of the digest.
        settings: the leaves that the stage reads.
        threads: CPU threads it computes with.
        inputs: the runs it builds on, by role.
        execution: how its work is cut and saved; no content.
        after: the runs that have to be complete before its job starts, by role, though it reads nothing of them; no
            content.
        places: where the user's own files lie, by the name under which its folder links to them; no content.
    """

    stage: str
    scripts: tuple[Path, ...]
    slug: str
    settings: Section
    threads: int
    inputs: Mapping[str, Run] = field(default_factory=dict)
    execution: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Run] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def content(self) -> dict[str, Any]:
        """Exactly what the digest is taken over."""
        return {
            "stage": self.stage,
            "settings": self.settings.model_dump(mode="json"),
            "threads": self.threads,
            "code": code_of(*self.scripts),
            "packages": packages_of(*self.scripts),
            "inputs": {role: run.digest for role, run in self.inputs.items()},
        }

    @cached_property
    def digest(self) -> str:
        """The content's sha256, hexadecimal."""
        return digest_of(self.content)

    @cached_property
    def name(self) -> str:
        """`STAGE/SLUG-DIGEST`, below `runs/`."""
        return f"{self.stage}/{slugged(self.slug)}-{self.digest[:12]}"

    @property
    def folder(self) -> Path:
        """Where the run lies, relative to the working directory."""
        return RUNS / self.name

    @property
    def manifest(self) -> Path:
        """The file that exists if and only if the run is complete."""
        return self.folder / MANIFEST

    @property
    def specification(self) -> dict[str, Any]:
        """What the run's job reads, alone, from `specification.json` in its folder."""
        return sealed(
            {
                **self.content,
                "slug": self.slug,
                "digest": self.digest,
                "builds_on": {role: run.name for role, run in self.inputs.items()},
                "after": {role: run.name for role, run in self.after.items()},
                "places": dict(self.places),
                "execution": dict(self.execution),
            }
        )

    def with_all_inputs(self) -> dict[str, Run]:
        """This run and every run that has to be complete before it, by name."""
        found: dict[str, Run] = {}
        queue: list[Run] = [self]
        while queue:
            run = queue.pop()
            if run.name not in found:
                found[run.name] = run
                queue.extend([*run.inputs.values(), *run.after.values()])
        return found


def slugs_of_runs() -> dict[tuple[str, str], str]:
    """What the runs that lie here are called: the slug, by stage and beginning of the digest.

    Equal runs may have been planned under several names; the first that is complete has it.
    """
    found: dict[tuple[str, str], str] = {}
    folders = sorted(RUNS.glob("*/*"), key=lambda folder: (not (folder / MANIFEST).exists(), folder))
    for folder in folders:
        if RUN.fullmatch(folder.relative_to(RUNS).as_posix()) and (folder / SPECIFICATION).exists():
            slug, _, digest = folder.name.rpartition("-")
            found.setdefault((folder.parent.name, digest), slug)
    return found


def read_specification(path: Path) -> dict[str, Any]:
    """The specification in a file.

    Raises `ArtefactError` if it is no specification, or does not have its own digest or its seal. The digest covers
    what decides the result; the seal covers the rest too: names of runs, places, and how the work is cut.

    What it says of other runs is their names, which become paths.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), kind) for key, kind in PARTS.items()):
        raise ArtefactError(f"{path}: not a specification; delete it and ask for the target again.")
    waits_for = content.get("after", {})
    if not isinstance(waits_for, dict):
        raise ArtefactError(f"{path}: not a specification; delete it and ask for the target again.")
    named = [*content["builds_on"].values(), *waits_for.values()]
    if not all(isinstance(name, str) and RUN.fullmatch(name) for name in named):
        raise ArtefactError(f"{path}: it names a run that can be none, expected STAGE/SLUG-DIGEST; delete it.")
    if content["builds_on"].keys() != content["inputs"].keys():
        raise ArtefactError(f"{path}: it does not say where all lies that it builds on; delete it.")
    if digest_of(content) != content["digest"]:
        raise ArtefactError(f"{path}: its content does not have its digest; delete it and ask for the target again.")
    if not has_its_seal(content):
        raise ArtefactError(f"{path}: its content does not have its seal; delete it and ask for the target again.")
    return content


def read_inputs(specification: Mapping[str, Any]) -> dict[str, Manifest]:
    """The manifests of the runs that a run builds on, by role. Raises `ArtefactError` as `read_input` does."""
    return {role: read_input(specification, role) for role in specification["builds_on"]}


def trained_behind(specification: Mapping[str, Any], inputs: Mapping[str, Manifest]) -> dict[str, str]:
    """The seal of every trained model behind a run, by the name of the model's run.

    Raises `ArtefactError` if two of its inputs were made with different builds of the same model.
    """
    names = specification["builds_on"]
    said = [(names[role], names[role], lies.seal) for role, lies in inputs.items() if lies.stage in TRAINED]
    said += [(names[role], model, seal) for role, lies in inputs.items() for model, seal in lies.trained.items()]
    found: dict[str, tuple[str, str]] = {}
    for name, model, seal in said:
        first, expected = found.setdefault(model, (name, seal))
        if seal != expected:
            old = str(RUNS / name) if first == model else f"{RUNS / first} and {RUNS / name}"
            raise ArtefactError(
                f"{old}: made with another build of {RUNS / model}, expected one and the same model behind all that "
                f"{specification['slug']} is made of; delete what `python -m corelib verify` says is of another build, "
                "and ask for the target again."
            )
    return {model: seal for model, (_, seal) in found.items()}


def read_input(specification: Mapping[str, Any], role: str) -> Manifest:
    """The manifest of one of them.

    Raises `ArtefactError` if there is none, or if it is of another run than the specification's digest vouches for.
    """
    if role not in specification["builds_on"]:
        raise ArtefactError(f"{specification['slug']}: it builds on no {role}, expected one.")
    manifest = read_manifest(RUNS / specification["builds_on"][role] / MANIFEST)
    if manifest.digest != (expected := specification["inputs"][role]):
        raise ArtefactError(
            f"{manifest.folder / MANIFEST}: it vouches for the run {manifest.digest[:12]}, expected "
            f"{str(expected)[:12]} as {role}; delete {manifest.folder} and ask for the target again."
        )
    return manifest


def digest_of(content: Mapping[str, Any]) -> str:
    """The sha256 of a specification's content in canonical JSON."""
    kept = {key: content[key] for key in ("stage", "settings", "threads", "code", "packages", "inputs")}
    return sha256_of_text(json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=True))


def slugged(text: str) -> str:
    """A text as part of a path: lower case, other characters than letters, digits and `_` become hyphens."""
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")


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
