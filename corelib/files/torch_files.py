"""Weight files from anywhere, looked through before they are loaded.

A pickle is a program. torch's own restricted reader executes nothing of it that is not known, but believes what it says
of sizes: it reads beyond the end of a record that is said to be longer, allocates what a header claims, and hashes a
key as long as hashing takes. So here the program is followed without being executed first, with every value a shadow,
and a file that would act, or claims more bytes than it has, is refused with a reason.
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

from corelib.errors import ArtefactError, AssetError, reason_of
from corelib.files.pickle_inspection import (
    DTYPES,
    PickleInspection,
    UnsafeWeights,
    check_archive,
    claims_within,
    is_archive,
    look_through,
    record_sizes,
)


def read_plain_weights(path: Path, expected: str, shells: Sequence[str] = (), mapped: bool = False) -> Any:
    """What is in a file that `torch.save` or safetensors wrote, on the CPU, without executing anything.

    Args:
        path: of the file.
        expected: what it should be, in words.
        shells: how the names of objects begin of which empty shells are enough.
        mapped: whether tensors stay in the file until they are used, where its format has them in one piece.

    Raises `AssetError` if it is missing, damaged, acts, or claims more than it has.
    """
    try:
        return load_file(path) if path.suffix == ".safetensors" else load_pickled(path, shells, mapped)
    except FileNotFoundError:
        raise AssetError(f"{path}: the file is missing, expected {expected}.") from None
    except Exception as error:  # torch raises many kinds for damaged files
        raise AssetError(
            f"{path}: not loadable as plain weights ({reason_of(error)}), expected tensors only."
        ) from None


def load_pickled(path: Path, shells: Sequence[str] = (), mapped: bool = False) -> Any:
    """As `read_plain_weights` of what torch wrote, but raises `UnsafeWeights`, `OSError` and whatever torch raises."""
    names = look_through(path, shells)
    stand_ins: list[Any] = [(_stand_in(name), name) for name in names]
    with safe_globals(stand_ins):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and is_archive(path))


def read_safetensors(path: Path, names: Iterable[str] = ()) -> dict[str, Tensor]:
    """The tensors of a safetensors file made here. Raises `ArtefactError` if it is damaged, or lacks a name."""
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except Exception as error:  # safetensors raises many kinds for damaged files
        raise ArtefactError(
            f"{path}: not readable as tensors ({reason_of(error)}); delete it and ask for the target again."
        ) from None
    if lacking := [name for name in names if name not in tensors]:
        raise ArtefactError(f"{path}: it has no tensor `{lacking[0]}`; delete it and ask for the target again.")
    return tensors


PROGRAM = ("__torch__.", "torch.jit._pickle.")
"""How the names begin of what the pickle of a TorchScript file makes: the program's modules, and lists of numbers."""


def torchscript_values(path: Path) -> dict[str, Tensor] | None:
    """The values of a TorchScript file by their records, read without loading the program.

    None if its pickle has something that is not known here; what loads the program then has to look at its values.
    Raises `UnsafeWeights` if the file is no whole TorchScript file.
    """
    if not is_archive(path):
        raise UnsafeWeights("it is no archive, as TorchScript files are")
    check_archive(path)
    records = torch._C.PyTorchFileReader(str(path))
    names = set(records.get_all_records())
    if "data.pkl" not in names or not any(name.startswith("code/") for name in names):
        raise UnsafeWeights("it has no program in it, as TorchScript files have")
    pickle = PickleInspection(io.BytesIO(records.get_record("data.pkl")), PROGRAM, claims_within(record_sizes(path)))
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


def _stand_in(name: str) -> Any:
    """What torch's reader makes in place of an object; it puts entries into dictionaries and lists alone."""
    if name == "collections.defaultdict":
        return _empty_dictionary
    if name == "collections.deque":
        return _empty_list
    return type(name.rsplit(".", 1)[-1], (_Shell,), {})


def _empty_dictionary(*_: object) -> dict[Any, Any]:
    return {}


def _empty_list(*_: object) -> list[Any]:
    return []


class _Shell:
    """Stands in for an object that only the training had a use for."""

    def __new__(cls, *_: object, **__: object) -> _Shell:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass
