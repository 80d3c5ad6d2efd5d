"""Pickles inspected opcode by opcode before they are loaded."""

from __future__ import annotations

import io
import math
import pickletools
import re
import struct
import zipfile
import zlib
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from corelib.errors import reason_of

ARCHIVE = b"PK\x03\x04"
"""How a file in torch's archive format begins; what was saved before 2020 has an older one."""

LARGEST_PICKLE = 16 * 2**20
"""Bytes of what says which tensors a file has; the 2,000 tensors of a CompVis checkpoint take 0.3 million."""

LARGEST_INFLATION = 64 * 2**20
"""Bytes by which an archive may grow when it is unpacked; torch compresses code, and never tensors."""

LARGEST_TUPLE = 1_000
"""Values of a tuple with those of the tuples in it; one that is hashed is gone through by all its paths."""

MOST_HUGE_NUMBERS = 1_000
"""Beyond 64 bits: any number of them can have one hash, and a dictionary of those takes the square of their number."""

TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")

ENCODING = "_codecs.encode"

CALLED = {
    *TENSORS,
    ENCODING,
    "builtins.set",
    "collections.OrderedDict",
    "torch.Size",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "torch._utils._rebuild_parameter",
}
"""What a file of weights may call. Not what makes tensors or bytes without a storage, as large as it says."""

BESIDE_WEIGHTS = frozenset(
    {
        "argparse.Namespace",
        "types.SimpleNamespace",
        "collections.defaultdict",
        "collections.deque",
        "collections.Counter",
        *(f"builtins.{name}" for name in ("bool", "complex", "dict", "float", "frozenset", "int", "list", "object")),
        *(f"builtins.{name}" for name in ("range", "slice", "str", "tuple")),
        "copyreg._reconstructor",
        *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
        *("decimal.Decimal", "fractions.Fraction", "uuid.UUID", "typing.Any"),
        *(
            f"{module}.{name}"
            for module in ("pathlib", "pathlib._local")
            for name in ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
        ),
        *(
            f"{module}.multiarray.{name}"
            for module in ("numpy.core", "numpy._core")
            for name in ("scalar", "_reconstruct")
        ),
        *(f"numpy.{name}" for name in ("dtype", "ndarray", "bool_", "bool")),
        *(f"numpy.{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
        *(f"numpy.float{bits}" for bits in (16, 32, 64)),
        "torch.torch_version.TorchVersion",
        *(f"omegaconf.{name}" for name in ("dictconfig.DictConfig", "listconfig.ListConfig", "nodes.AnyNode")),
        *(f"omegaconf.base.{name}" for name in ("ContainerMetadata", "Metadata")),
    }
)
"""What training scripts save beside weights: their options, paths, counters, numbers of numpy, times.

None of it is needed. Each becomes an empty stand-in, and nothing of what it names is imported or called.
"""

STORAGES = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1,
}  # fmt: skip
"""Bytes of a value by the kind of its storage."""

DTYPES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
    "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool",
}  # fmt: skip
"""What torch calls the same kinds elsewhere."""

STORAGE = re.compile(rf"torch\.(?:cuda\.)?({'|'.join(STORAGES)})Storage")

DTYPE = re.compile(r"torch\.(bool|bfloat16|float16|float32|float64|u?int8|int16|int32|int64)")


class UnsafeWeights(ValueError):
    """Why a file is not loaded: some words for within a sentence."""


def look_through(path: Path, shells: Sequence[str] = ()) -> set[str]:
    """The names of objects in a file of torch's that are to be shells.

    Raises `UnsafeWeights` if it acts or claims more than it has, `OSError` if it is not readable.
    """
    if path.exists() and not path.is_file():
        raise UnsafeWeights("it is no regular file")
    return _look_through_archive(path, shells) if is_archive(path) else _look_through_old_format(path, shells)


def is_archive(path: Path) -> bool:
    """Whether a file begins as a zip archive, the form in which torch has saved since version 1.6."""
    with path.open("rb") as stream:
        return stream.read(len(ARCHIVE)) == ARCHIVE


def check_archive(path: Path) -> None:
    """Raise `UnsafeWeights` if an archive would grow to much more than the file has when it is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise UnsafeWeights(f"the archive is damaged: {reason_of(error)}") from None
    if unpacked > path.stat().st_size + LARGEST_INFLATION:
        raise UnsafeWeights(f"its archive grows to {unpacked:,} bytes, more than the file has")


def check_sums(path: Path) -> None:
    """Raise `UnsafeWeights` if a record of an archive has other bytes than were written; torch itself does not look."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, EOFError, zlib.error) as error:
        raise UnsafeWeights(f"the archive is damaged: {reason_of(error)}") from None
    if damaged is not None:
        raise UnsafeWeights(f"its record {damaged} is damaged")


def _look_through_archive(path: Path, shells: Sequence[str]) -> set[str]:
    """The names of objects in the pickle of an archive that are to be shells; every record is as long as it is said."""
    check_archive(path)
    records, sizes = torch._C.PyTorchFileReader(str(path)), record_sizes(path)
    if sizes.get("data.pkl", LARGEST_PICKLE + 1) > LARGEST_PICKLE:
        raise UnsafeWeights("it has no `data.pkl` of a likely size")
    pickle = PickleInspection(io.BytesIO(records.get_record("data.pkl")), shells, claims_within(sizes))
    pickle.follow()
    return pickle.shelled


def record_sizes(path: Path) -> dict[str, int]:
    """The size of each record of an archive, by its name below the archive's own folder."""
    with zipfile.ZipFile(path) as archive:
        return {record.filename.partition("/")[2]: record.file_size for record in archive.infolist()}


def claims_within(sizes: Mapping[str, int]) -> Callable[[str, int], None]:
    """Looks at each storage of an archive: it may claim no more bytes than its record has."""

    def claimed(key: str, claim: int) -> None:
        if claim > sizes.get(f"data/{key}", -1):
            raise UnsafeWeights(f"a tensor claims {claim:,} bytes, more than its record has")

    return claimed


def _look_through_old_format(path: Path, shells: Sequence[str]) -> set[str]:
    """As of archives: three pickles that say which format it is, one with the objects, one with the storages' keys."""
    size, total = path.stat().st_size, 0
    with path.open("rb") as stream:
        beginning = io.BytesIO(stream.read(LARGEST_PICKLE))

    def claimed(_: str, claim: int) -> None:
        nonlocal total
        total += claim
        if total > size:
            raise UnsafeWeights(f"its tensors claim {total:,} bytes, more than the file has")

    pickle = PickleInspection(beginning, shells, claimed)
    for _ in range(5):
        pickle.follow()
    return pickle.shelled


@dataclass(frozen=True)
class _Global:
    """Something that a pickle names."""

    name: str


@dataclass(frozen=True)
class _Made:
    """What calling it has made."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """The values of some tensors, and how their kind is called."""

    key: str
    length: int
    kind: str


@dataclass(frozen=True)
class _Tuple:
    """A tuple, and how many values are in it and in the tuples in it."""

    values: tuple[Any, ...]
    weight: int


ANYTHING, MARK = object(), object()
"""A value of which nothing needs to be known, and where a group of values begins."""


class PickleInspection:
    """A program in torch's part of the language, one opcode after the other on a stack of shadows.

    Args:
        stream: what is read.
        shells: how the names of objects begin that may be shells.
        claimed: told of each storage once, in bytes.

    Attributes:
        shelled: the names of these objects.
        storages: the values of its tensors, by their keys.
    """

    def __init__(self, stream: io.BytesIO, shells: Sequence[str], claimed: Callable[[str, int], None]) -> None:
        self.shelled: set[str] = set()
        self._stream = stream
        self._shells = tuple(shells)
        self._claimed = claimed
        self.storages: dict[str, _Storage] = {}
        self._huge = 0

    def follow(self) -> None:
        """One program to its end. Raises `UnsafeWeights` if it has none, or does what no weights do."""
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        try:
            for opcode, argument, _ in pickletools.genops(self._stream):
                self._step(opcode.name, argument)
        except UnsafeWeights:
            raise
        except (ValueError, IndexError, KeyError, OverflowError) as error:
            raise UnsafeWeights(f"the pickle in it is damaged: {reason_of(error)[:80]}") from None

    def _step(self, opcode: str, argument: Any) -> None:
        stack = self._stack
        match opcode:
            case "PROTO" | "STOP":
                pass
            case "MARK":
                stack.append(MARK)
            case "GLOBAL":
                stack.append(self._named(argument))
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "REDUCE" | "NEWOBJ":
                arguments, called = stack.pop(), stack.pop()
                stack.append(self._called(called, arguments))
            case "BUILD":
                stack.pop()
                self._check_that_it_has_a_state(stack[-1])
            case "APPEND":
                stack.pop()
            case "SETITEM":
                _check_key(stack[-2])
                del stack[-2:]
            case "APPENDS":
                self._since_mark()
            case "SETITEMS":
                for key in self._since_mark()[::2]:
                    _check_key(key)
            case "TUPLE":
                stack.append(_tuple(self._since_mark()))
            case "EMPTY_TUPLE":
                stack.append(_tuple([]))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(_tuple([stack.pop() for _ in range(int(opcode[-1]))][::-1]))
            case "BINUNICODE" | "SHORT_BINSTRING" | "BININT" | "BININT1" | "BININT2":
                stack.append(argument)
            case "LONG1":
                self._count_huge(argument)
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE" | "BINFLOAT" | "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_SET":
                stack.append(ANYTHING)
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case _:
                raise UnsafeWeights(f"its pickle uses {opcode}, of which weights have no need")

    def _since_mark(self) -> list[Any]:
        place = next(place for place in reversed(range(len(self._stack))) if self._stack[place] is MARK)
        values = self._stack[place + 1 :]
        del self._stack[place:]
        return values

    def _count_huge(self, number: int) -> None:
        self._huge += abs(number) >= 2**64
        if self._huge > MOST_HUGE_NUMBERS:
            raise UnsafeWeights("its pickle is full of huge numbers")

    def _named(self, argument: str) -> _Global:
        module, _, name = argument.partition(" ")
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))  # of Python 2
        full = f"{module}.{name}"
        if full in BESIDE_WEIGHTS or (self._shells and full.startswith(self._shells)):
            self.shelled.add(full)
        elif full not in CALLED and not STORAGE.fullmatch(full) and not DTYPE.fullmatch(full):
            raise UnsafeWeights(f"it names {full[:100]}, of which weights have no need")
        return _Global(full)

    def _storage(self, said: Any) -> _Storage:
        """A storage by what the pickle says of it: the word `storage`, its kind, key, device and length."""
        match said:
            case _Tuple(values=("storage", _Global(name=name), str(key), _, int(length), *_)) if length >= 0:
                if (kind := STORAGE.fullmatch(name)) is not None:
                    storage = _Storage(key, length, kind[1])
                    if key not in self.storages:
                        self._claimed(key, storage.length * STORAGES[storage.kind])
                    if self.storages.setdefault(key, storage) != storage:
                        raise UnsafeWeights("two tensors say different things of the values that they share")
                    return storage
        raise UnsafeWeights("it has a storage of an unknown kind")

    def _called(self, called: Any, arguments: Any) -> _Made:
        if not isinstance(called, _Global) or not isinstance(arguments, _Tuple):
            raise UnsafeWeights("its pickle calls what it has not named")
        if called.name in TENSORS:
            _check_tensor(arguments.values)
        elif called.name == ENCODING and arguments.values[1:] != ("latin1",):
            raise UnsafeWeights("it has text in an unknown encoding")
        elif called.name not in CALLED and called.name not in self.shelled:
            raise UnsafeWeights(f"it calls {called.name[:100]}, of which weights have no need")
        return _Made(called.name)

    def _check_that_it_has_a_state(self, made: Any) -> None:
        if not isinstance(made, _Made) or made.name not in {"collections.OrderedDict", *self.shelled}:
            raise UnsafeWeights("its pickle changes what it has made")


def _tuple(values: list[Any]) -> _Tuple:
    weight = sum(value.weight if isinstance(value, _Tuple) else 1 for value in values) + 1
    if weight > LARGEST_TUPLE:
        raise UnsafeWeights(f"it has a tuple of more than {LARGEST_TUPLE} values")
    return _Tuple(tuple(values), weight)


def _check_key(key: Any) -> None:
    if isinstance(key, _Tuple):
        raise UnsafeWeights("it has a tuple as a key, expected text")


def _check_tensor(said: tuple[Any, ...]) -> None:
    """A tensor by what the pickle says of it: storage, offset, sizes and strides. It has no more values than those."""
    match said:
        case (_Storage() as storage, int(offset), _Tuple(values=sizes), _Tuple(values=strides), *_):
            numbers = (offset, *sizes, *strides)
            if len(sizes) == len(strides) and all(isinstance(number, int) and number >= 0 for number in numbers):
                last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
                count = math.prod(sizes)
                if count == 0 or (count <= storage.length and last < storage.length):
                    return
                raise UnsafeWeights(f"a tensor claims {count:,} values, more than its storage has")
    raise UnsafeWeights("it has a tensor of an unknown form")
