"""Untrusted weight files, inspected before they are loaded.

A pickle is a program. torch's own restricted unpickler executes only known functions, but trusts the sizes in the file:
it reads beyond the end of a record whose declared length is too large, allocates any size that a header claims, and
hashes a key however long that takes. The opcodes are therefore interpreted symbolically before anything is loaded. A
file that would execute other code, or that claims more bytes than it has, is refused with a reason.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import safe_globals

from corelib.errors import ArtefactError, AssetError, short_message
from corelib.files.pickle_inspection import (
    DTYPES,
    PickleInspection,
    UnsafeWeights,
    check_archive,
    inspect_pickle,
    is_archive,
    record_sizes,
    storage_size_check,
)


def read_plain_weights(path: Path, expected: str, stub_prefixes: Sequence[str] = (), mapped: bool = False) -> Any:
    """Load a file of `torch.save` or safetensors on the CPU, without executing code from it.

    Args:
        path: path of the file.
        expected: description of the expected content, for the error.
        stub_prefixes: beginnings of the names of classes that are replaced by empty stubs.
        mapped: whether tensors are memory-mapped, if the format of the file allows it.

    Raises `AssetError` if the file is missing or damaged, would execute code, or claims more bytes than it has.
    """
    try:
        return load_file(path) if path.suffix == ".safetensors" else load_pickled(path, stub_prefixes, mapped)
    except FileNotFoundError:
        raise AssetError(f"{path}: the file is missing, expected {expected}.") from None
    except Exception as error:  # torch raises many types of exceptions for damaged files
        raise AssetError(
            f"{path}: not loadable as plain weights ({short_message(error)}), expected tensors only."
        ) from None


def load_pickled(path: Path, stub_prefixes: Sequence[str] = (), mapped: bool = False) -> Any:
    """As `read_plain_weights`, for a file of `torch.save`.

    Raises `UnsafeWeights`, `OSError`, and any exception of torch's.
    """
    names = inspect_pickle(path, stub_prefixes)
    stubs: list[Any] = [(_stub_of(name), name) for name in names]
    with safe_globals(stubs):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and is_archive(path))


def read_safetensors(path: Path, names: Iterable[str] = ()) -> dict[str, Tensor]:
    """The tensors of a safetensors file that this pipeline wrote.

    Raises `ArtefactError` if the file is damaged or lacks one of the tensors `names`.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except Exception as error:  # safetensors raises many types of exceptions for damaged files
        raise ArtefactError(
            f"{path}: not readable as tensors ({short_message(error)}); delete it and ask for the target again."
        ) from None
    if missing := [name for name in names if name not in tensors]:
        raise ArtefactError(f"{path}: it has no tensor `{missing[0]}`; delete it and ask for the target again.")
    return tensors


TORCHSCRIPT_PREFIXES = ("__torch__.", "torch.jit._pickle.")
"""Beginnings of the names of classes in a TorchScript file's pickle: modules of its program, and lists of numbers."""


def torchscript_values(path: Path) -> dict[str, Tensor] | None:
    """The values of a TorchScript file by record, read without loading its program.

    Returns None if the pickle contains something unknown; the code that loads the program must then check its values.
    Raises `UnsafeWeights` if the file is not a complete TorchScript file.
    """
    if not is_archive(path):
        raise UnsafeWeights("it is not an archive, expected a TorchScript file")
    check_archive(path)
    records = torch._C.PyTorchFileReader(str(path))
    names = set(records.get_all_records())
    if "data.pkl" not in names or not any(name.startswith("code/") for name in names):
        raise UnsafeWeights("it contains no program, expected a TorchScript file")
    pickle = PickleInspection(
        io.BytesIO(records.get_record("data.pkl")), TORCHSCRIPT_PREFIXES, storage_size_check(record_sizes(path))
    )
    try:
        pickle.follow()
    except UnsafeWeights:
        return None
    contents = {key: bytearray(records.get_record(f"data/{key}")) for key in pickle.storages}
    return {
        key: torch.frombuffer(content, dtype=getattr(torch, DTYPES[pickle.storages[key].kind]))
        for key, content in contents.items()
        if content
    }


def _stub_of(name: str) -> Any:
    """The stub that torch's unpickler creates for a class; it adds entries only to dictionaries and lists."""
    if name == "collections.defaultdict":
        return _empty_dictionary
    if name == "collections.deque":
        return _empty_list
    return type(name.rsplit(".", 1)[-1], (_Stub,), {})


def _empty_dictionary(*_: object) -> dict[Any, Any]:
    return {}


def _empty_list(*_: object) -> list[Any]:
    return []


class _Stub:
    """Replaces an object that only the training script used."""

    def __new__(cls, *_: object, **__: object) -> _Stub:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass
