"""Import of `corelib` from its source files only, so that the code that runs is the code that addresses are made of.

Python considers the `.pyc` file of a module current if the source file has the size and time stamp recorded in it, and
prefers a package or a compiled module to a `.py` file of the same name. An address is a digest of the `.py` file. The
package therefore installs this finder before any of its modules is imported: in a job, in Snakemake's own process and
for `python -m corelib`. Other packages keep their `.pyc` files.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

PACKAGE_FOLDER = Path(__file__).resolve().parent

_compiled: dict[str, str] = {}
"""Sha256 of the source of each imported module, by its path."""


def source_file(name: str) -> Path | None:
    """The source file of a library module: its `.py` file, else the `__init__.py` of its folder, else None."""
    package, *parts = name.split(".")
    if package != PACKAGE_FOLDER.name:
        return None
    path = PACKAGE_FOLDER.joinpath(*parts)
    module, initial = path.with_suffix(".py"), path / "__init__.py"
    return module if parts and module.is_file() else initial if initial.is_file() else None


class _FromSource(SourceFileLoader):
    """Compiles a module on every import and writes no `.pyc` file."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        source = self.get_data(path)
        _compiled[path] = hashlib.sha256(source).hexdigest()
        return self.source_to_code(source, path)


class _Finder(MetaPathFinder):
    """Finds library modules in the source files that `source_file` returns, and nowhere else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The import specification of a library module; None for modules of other packages."""
        if fullname.partition(".")[0] != PACKAGE_FOLDER.name:
            return None
        file = source_file(fullname)
        if file is None:
            raise ModuleNotFoundError(
                f"No module named {fullname!r}: {PACKAGE_FOLDER} has no source file for it.", name=fullname
            )
        folders = [str(file.parent)] if file.name == "__init__.py" else None
        loader = _FromSource(fullname, str(file))
        return spec_from_file_location(fullname, file, loader=loader, submodule_search_locations=folders)


def has_changed() -> bool:
    """Whether the source of a module has changed since the module was imported."""
    return any(not _has_sha256(Path(path), sha256) for path, sha256 in _compiled.items())


def _has_sha256(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def install() -> None:
    """Make Python import the library through `_Finder`."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
