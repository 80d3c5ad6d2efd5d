"""Whether the packages that a job has imported are those whose versions its address names.

A version is what a package's metadata says. The code may come from elsewhere: a folder of the same name on the path of
imports, an editable install, a file that somebody has edited, a library that is loaded first. Each is refused in one
sentence.
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

TAKEN_UP = (
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
"""Import names of packages that the numerical packages take up by themselves where they are installed, as
docs/variables.md says. They belong to no address."""

OTHERS = ("site-packages", "dist-packages")
"""Names of folders into which packages are installed."""

COMPILED = re.compile(
    r"lib(torch|c10|gomp|iomp5|omp|openblas|scipy_openblas|mkl_|cublas|cudart|cudnn|cufft|curand|cusolver|cusparse|nvrtc"
    r"|nvJitLink|nccl)[^/]*\.so[^/]*"
)
"""Names of the compiled libraries that compute, all of which the packages bring along."""


@dataclass(frozen=True)
class _Package:
    """An installed distribution of which something has been imported.

    Attributes:
        imported: the name under which it is imported.
        installed: its metadata.
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
                f"{imported}: imported, though {name} is not installed in {sys.prefix}; run `make env`."
            ) from None

    @cached_property
    def root(self) -> Path:
        return Path(str(self.installed.locate_file("")))

    @cached_property
    def files(self) -> dict[str, tuple[str, str]]:
        """The hash and the size of every file that was installed, by its path below `root`."""
        text = self.installed.read_text("RECORD")
        if text is None:
            raise ConfigurationError(f"{self.root}: {self} has no list of its files (RECORD); {self._make_anew}.")
        return {row[0]: (row[1], row[2]) for row in csv.reader(text.splitlines()) if len(row) == 3}

    @cached_property
    def recorded_at(self) -> float:
        """When it was installed: the installer writes the list of files last."""
        metadata = getattr(self.installed, "_path", self.root)
        return Path(metadata, "RECORD").stat().st_mtime

    def check_origin(self) -> None:
        """Raise `ConfigurationError` if it was installed from a folder, of whose content its version says nothing."""
        origin = json.loads(self.installed.read_text("direct_url.json") or "{}")
        if "dir_info" in origin or "vcs_info" in origin:
            raise ConfigurationError(
                f"{self.root}: {self} was installed from {origin['url']}, whose code its version does not tell, "
                f"expected a release; give changed code a version of its own, build a wheel and install that, or "
                f"{self._make_anew}."
            )

    def check(self, file: Path) -> None:
        """Raise `ConfigurationError` if a file that was imported is not as it was installed."""
        if file.is_dir() and self.root in file.parents:  # a folder of modules, which are files of their own
            return
        try:
            recorded = self.files[file.relative_to(self.root).as_posix()]
        except (ValueError, KeyError):
            raise ConfigurationError(
                f"{file}: Python imports {self.imported} from here, expected the files of {self} in {self.root}; "
                "remove or rename this copy, or the `.pth` file or editable install that leads to it."
            ) from None
        if self._differs(file, *recorded):
            raise ConfigurationError(f"{file}: it is not the file that {self} brought; {self._make_anew}.")

    def _differs(self, file: Path, hashed: str, size: str) -> bool:
        """By its size, and by its hash if it is newer than the installation: a job imports thousands of files."""
        state = file.stat()
        if size and state.st_size != int(size):
            return True
        algorithm, _, expected = hashed.partition("=")
        if not expected or state.st_mtime <= self.recorded_at:
            return False
        found = base64.urlsafe_b64encode(hashlib.new(algorithm, file.read_bytes()).digest())
        return found.rstrip(b"=").decode() != expected

    @property
    def _make_anew(self) -> str:
        name, version = self.installed.name, self.installed.version
        return f"install it anew (`{sys.executable} -m pip install --force-reinstall --no-deps {name}=={version}`)"

    def __str__(self) -> str:
        return f"{self.installed.name} {self.installed.version}"


def check_packages() -> None:
    """Raise `ConfigurationError` if something that this process has imported is not the environment's own.

    What a stage imports only while it runs is seen when this is called again after it.
    """
    _check_what_is_taken_up()
    _check_places()
    _check_numerical_packages()
    _check_compiled_libraries()


def _check_what_is_taken_up() -> None:
    for name in TAKEN_UP:
        try:
            spec = importlib.util.find_spec(name)
        except ValueError:  # it is a module that was made in memory
            continue
        if spec is not None:
            place = spec.origin or next(iter(spec.submodule_search_locations or [name]))
            raise ConfigurationError(
                f"{place}: the package {name} is installed, which other packages compute with by themselves, expected "
                "an environment without it (docs/variables.md); uninstall it, or use the one that `make env` makes."
            )


def _check_places() -> None:
    """That whatever is imported comes from the standard library, from installed packages or from `corelib`."""
    own = Path(__file__).resolve().parent.parent
    standard = {Path(os.__file__).parent, *(Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib"))}
    for name, module in list(sys.modules.items()):
        file = _file_of(module)
        if "." in name or name in ("__main__", "__mp_main__") or file is None:
            continue
        place = file.parent.parent if file.name.startswith("__init__.") else file.parent
        is_ours = name == own.name and file.parent.resolve() == own
        if is_ours or place.name in OTHERS or any(folder == place or folder in place.parents for folder in standard):
            continue
        raise ConfigurationError(
            f"{file}: Python imports {name} from here, expected an installed package; rename or remove this file, "
            f"or install {name} from a release."
        )


def _check_numerical_packages() -> None:
    found = {name: _Package.of(name) for name in NUMERICAL_PACKAGES if name in sys.modules}
    for package in found.values():
        package.check_origin()
    for name, module in list(sys.modules.items()):
        package_or_none, file = found.get(name.partition(".")[0]), _file_of(module)
        if package_or_none is not None and file is not None:
            package_or_none.check(file)


def _check_compiled_libraries() -> None:
    """That those which compute come from the environment, not from a place that is searched before it."""
    installed = (sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    places = {Path(path).resolve() for path in (sys.prefix, *installed)}
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return
    for path in sorted({Path(line[line.index("/") :]) for line in lines if "/" in line}):
        if COMPILED.fullmatch(path.name) and not any(place in path.parents for place in places):
            raise ConfigurationError(
                f"{path}: this compiled library is loaded instead of the environment's own, expected one below "
                f"{sys.prefix}; unset LD_PRELOAD and LD_LIBRARY_PATH, or take its folder out of them."
            )


def _file_of(module: ModuleType) -> Path | None:
    """The file that a module was imported from, its folder if it has no file, or None if it was made in memory."""
    spec = getattr(module, "__spec__", None)
    if spec is None:
        return None
    if spec.has_location and spec.origin:
        return Path(spec.origin)
    folders = list(spec.submodule_search_locations or []) if spec.loader is None or spec.origin is None else []
    return Path(folders[0]) if folders else None
