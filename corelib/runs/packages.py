"""Checks that a job has imported the packages whose versions are part of its address.

A version comes from the metadata of a package, but the code may come from elsewhere: a folder of the same name on
`sys.path`, an editable install, an edited file, a library that is loaded first. A job stops on each of these.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import sys
import sysconfig
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import Distribution
from pathlib import Path
from types import ModuleType

from corelib.errors import ConfigurationError
from corelib.runs.fingerprint import NUMERICAL_PACKAGES

FORBIDDEN_PACKAGES = (
    "apex",
    "bitsandbytes",
    "bottleneck",
    "cutlass",
    "deepspeed",
    "flash_attn",
    "flash_attn_3",
    "flydsl",
    "habana_frameworks",
    "helion",
    "intel_extension_for_pytorch",
    "kernels",
    "msamp",
    "numexpr",
    "nvmath",
    "opt_einsum",
    "peft",
    "sageattention",
    "torch_mlu",
    "torch_musa",
    "torch_neuronx",
    "torch_npu",
    "torch_sdaa",
    "torch_tpu",
    "torch_xla",
    "torchao",
    "transformer_engine",
    "xformers",
)
"""Import names of packages that the numerical packages use automatically if they are installed (docs/variables.md).
Their versions are part of no address."""

INSTALL_FOLDERS = ("site-packages", "dist-packages")
"""Names of folders into which packages are installed."""

NUMERICAL_LIBRARIES = re.compile(
    r"lib(torch|c10|gomp|iomp5|omp|openblas|scipy_openblas|mkl_|cublas|cudart|cudnn|cufft|curand|cusolver|cusparse|nvrtc"
    r"|nvJitLink|nccl)[^/]*\.so[^/]*"
)
"""Names of compiled numerical libraries, all of which come with the packages."""


@dataclass(frozen=True)
class _Package:
    """An installed distribution from which modules have been imported.

    Attributes:
        imported: import name.
        installed: metadata.
    """

    imported: str
    installed: Distribution

    @classmethod
    def of(cls, imported: str) -> _Package:
        name = NUMERICAL_PACKAGES[imported]
        try:
            return cls(imported, importlib.metadata.distribution(name))
        except importlib.metadata.PackageNotFoundError:
            raise ConfigurationError(
                f"{imported}: it was imported, but {name} is not installed in {sys.prefix}; run `make env`."
            ) from None

    @cached_property
    def root(self) -> Path:
        return Path(str(self.installed.locate_file("")))

    @cached_property
    def files(self) -> dict[str, tuple[str, str]]:
        """The hash and the size of every installed file, by its path below `root`."""
        text = self.installed.read_text("RECORD")
        if text is None:
            raise ConfigurationError(f"{self.root}: {self} has no list of its files (RECORD); {self._reinstall}.")
        return {row[0]: (row[1], row[2]) for row in csv.reader(text.splitlines()) if len(row) == 3}

    @cached_property
    def recorded_at(self) -> float:
        """Time of the installation: the installer writes the list of files last."""
        metadata = getattr(self.installed, "_path", self.root)
        return Path(metadata, "RECORD").stat().st_mtime

    def check_origin(self) -> None:
        """Raise `ConfigurationError` if it was installed from a folder or repository.

        The version of such a package does not identify its code.
        """
        origin = json.loads(self.installed.read_text("direct_url.json") or "{}")
        if "dir_info" in origin or "vcs_info" in origin:
            raise ConfigurationError(
                f"{self.root}: {self} was installed from {origin['url']}, expected a release, because the version must "
                f"identify the code; give changed code its own version and install it from a wheel, or "
                f"{self._reinstall}."
            )

    def check(self, file: Path) -> None:
        """Raise `ConfigurationError` if an imported file differs from the installed file."""
        if file.is_dir() and self.root in file.parents:  # a namespace package; its modules are checked one by one
            return
        try:
            recorded = self.files[file.relative_to(self.root).as_posix()]
        except (ValueError, KeyError):
            raise ConfigurationError(
                f"{file}: Python imports {self.imported} from here, expected the files of {self} in {self.root}; "
                "remove or rename this copy, or remove the `.pth` file or editable install that refers to it."
            ) from None
        if self._differs(file, *recorded):
            raise ConfigurationError(f"{file}: it differs from the file that {self} installed; {self._reinstall}.")

    def _differs(self, file: Path, recorded_hash: str, size: str) -> bool:
        """Whether a file has another size, or is newer than the installation and has another hash.

        Older files are not hashed, because a job imports thousands of files.
        """
        status = file.stat()
        if size and status.st_size != int(size):
            return True
        algorithm, _, expected = recorded_hash.partition("=")
        if not expected or status.st_mtime <= self.recorded_at:
            return False
        actual = base64.urlsafe_b64encode(hashlib.new(algorithm, file.read_bytes()).digest())
        return actual.rstrip(b"=").decode() != expected

    @property
    def _reinstall(self) -> str:
        name, version = self.installed.name, self.installed.version
        return f"reinstall it (`{sys.executable} -m pip install --force-reinstall --no-deps {name}=={version}`)"

    def __str__(self) -> str:
        return f"{self.installed.name} {self.installed.version}"


def check_packages() -> None:
    """Raise `ConfigurationError` if a module or library in this process does not come from the environment.

    Call this again after a stage has run, because the stage may import further modules.
    """
    _check_optional_packages()
    _check_locations()
    _check_numerical_packages()
    _check_compiled_libraries()


def _check_optional_packages() -> None:
    """Check that no package is installed that others use automatically."""
    for name in FORBIDDEN_PACKAGES:
        try:
            spec = importlib.util.find_spec(name)
        except ValueError:  # a module that was created in memory
            continue
        if spec is not None:
            location = spec.origin or next(iter(spec.submodule_search_locations or [name]))
            raise ConfigurationError(
                f"{location}: the package {name} is installed, and other packages use it automatically, expected an "
                "environment without it (docs/variables.md); uninstall it, or use the environment of `make env`."
            )


def _check_locations() -> None:
    """Check that all modules come from the standard library, from installed packages or from `corelib`."""
    corelib = Path(__file__).resolve().parent.parent
    standard = {Path(os.__file__).parent, *(Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib"))}
    for name, module in list(sys.modules.items()):
        file = _file_of(module)
        if "." in name or name in ("__main__", "__mp_main__") or file is None:
            continue
        folder = file.parent.parent if file.name.startswith("__init__.") else file.parent
        is_corelib = name == corelib.name and file.parent.resolve() == corelib
        if is_corelib or folder.name in INSTALL_FOLDERS or any(root in (folder, *folder.parents) for root in standard):
            continue
        raise ConfigurationError(
            f"{file}: Python imports {name} from here, expected an installed package; rename or remove this file, "
            f"or install {name} from a release."
        )


def _check_numerical_packages() -> None:
    """Check that every module of a numerical package is the file that was installed."""
    packages = {name: _Package.of(name) for name in NUMERICAL_PACKAGES if name in sys.modules}
    for package in packages.values():
        package.check_origin()
    for name, module in list(sys.modules.items()):
        package_or_none, file = packages.get(name.partition(".")[0]), _file_of(module)
        if package_or_none is not None and file is not None:
            package_or_none.check(file)


def _check_compiled_libraries() -> None:
    """Check that numerical libraries were loaded from the environment, not from a folder searched before it."""
    installed = (sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    roots = {Path(path).resolve() for path in (sys.prefix, *installed)}
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for path in sorted({Path(line[line.index("/") :]) for line in lines if "/" in line}):
        if NUMERICAL_LIBRARIES.fullmatch(path.name) and not any(root in path.parents for root in roots):
            raise ConfigurationError(
                f"{path}: this compiled library is loaded instead of that of the environment, expected one below "
                f"{sys.prefix}; unset LD_PRELOAD and LD_LIBRARY_PATH, or remove its folder from them."
            )


def _file_of(module: ModuleType) -> Path | None:
    """The file of a module, its folder if it has no file, or None if it was created in memory."""
    spec = getattr(module, "__spec__", None)
    if spec is None:
        return None
    if spec.has_location and spec.origin:
        return Path(spec.origin)
    folders = list(spec.submodule_search_locations or []) if spec.loader is None or spec.origin is None else []
    return Path(folders[0]) if folders else None
