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

from corelib.errors import short_message

ARCHIVE = b"PK\x03\x04"
"""The first bytes of a file in torch's archive format; files saved before 2020 have an older format."""

MAX_PICKLE_BYTES = 16 * 2**20
"""Maximum size, in bytes, of the pickle that describes a file's tensors. The 2,000 tensors of a CompVis checkpoint take
0.3 million."""

MAX_DECOMPRESSION_GROWTH = 64 * 2**20
"""Maximum number of bytes by which an archive may grow when decompressed; torch compresses code but never tensors."""

MAX_TUPLE_SIZE = 1_000
"""Maximum number of values of a tuple, nested tuples included; hashing a tuple visits it along every path."""

MAX_HUGE_INTEGERS = 1_000
"""Maximum number of integers beyond 64 bits. Any number of them can share one hash, and a dictionary of such keys takes
time quadratic in their number."""

TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")

ENCODING = "_codecs.encode"

ALLOWED_CALLS = {
    *TENSORS,
    ENCODING,
    "builtins.set",
    "collections.OrderedDict",
    "torch.Size",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "torch._utils._rebuild_parameter",
}
"""Functions and classes that a weight file may call. Those that allocate tensors or bytes of any stated size, without a
storage, are not among them."""

STUBBED_CLASSES = frozenset(
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
"""Classes that training scripts save beside weights: their options, paths, counters, NumPy numbers, times.

None of them is needed. Each is replaced by an empty stub, and nothing that the file names is imported or called.
"""

BYTES_PER_VALUE = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1,
}  # fmt: skip
"""Bytes per value of each kind of storage."""

DTYPES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
    "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool",
}  # fmt: skip
"""The name of torch's dtype for each kind of storage."""

STORAGE = re.compile(rf"torch\.(?:cuda\.)?({'|'.join(BYTES_PER_VALUE)})Storage")

DTYPE = re.compile(r"torch\.(bool|bfloat16|float16|float32|float64|u?int8|int16|int32|int64)")


class UnsafeWeights(ValueError):
    """A weight file must not be loaded. The message is a clause without a full stop, to be used in a sentence."""


def inspect_pickle(path: Path, stub_prefixes: Sequence[str] = ()) -> set[str]:
    """Inspect a file that torch saved; return the names of the classes to be replaced by empty stubs.

    Raises `UnsafeWeights` if the file would execute other code or claims more bytes than it has, and `OSError` if it
    is not readable.
    """
    if path.exists() and not path.is_file():
        raise UnsafeWeights("it is not a regular file")
    return _inspect_archive(path, stub_prefixes) if is_archive(path) else _inspect_old_format(path, stub_prefixes)


def is_archive(path: Path) -> bool:
    """Whether a file begins as a zip archive, the format in which torch saves since version 1.6."""
    with path.open("rb") as stream:
        return stream.read(len(ARCHIVE)) == ARCHIVE


def check_archive(path: Path) -> None:
    """Raise `UnsafeWeights` if an archive would grow much larger than its file when it is decompressed."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise UnsafeWeights(f"the archive is damaged: {short_message(error)}") from None
    if unpacked > path.stat().st_size + MAX_DECOMPRESSION_GROWTH:
        raise UnsafeWeights(f"its archive grows to {unpacked:,} bytes, more than the file has")


def check_checksums(path: Path) -> None:
    """Raise `UnsafeWeights` if a record of an archive fails its checksum, which torch itself does not check."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, EOFError, zlib.error) as error:
        raise UnsafeWeights(f"the archive is damaged: {short_message(error)}") from None
    if damaged is not None:
        raise UnsafeWeights(f"its record {damaged} is damaged")


def _inspect_archive(path: Path, stub_prefixes: Sequence[str]) -> set[str]:
    """`inspect_pickle` of an archive: no tensor may claim more bytes than its record has."""
    check_archive(path)
    records, sizes = torch._C.PyTorchFileReader(str(path)), record_sizes(path)
    if sizes.get("data.pkl", MAX_PICKLE_BYTES + 1) > MAX_PICKLE_BYTES:
        raise UnsafeWeights(f"it has no `data.pkl` of at most {MAX_PICKLE_BYTES:,} bytes")
    pickle = PickleInspection(io.BytesIO(records.get_record("data.pkl")), stub_prefixes, storage_size_check(sizes))
    pickle.follow()
    return pickle.shelled


def record_sizes(path: Path) -> dict[str, int]:
    """The size in bytes of each record of an archive, by its name below the archive's top folder."""
    with zipfile.ZipFile(path) as archive:
        return {record.filename.partition("/")[2]: record.file_size for record in archive.infolist()}


def storage_size_check(sizes: Mapping[str, int]) -> Callable[[str, int], None]:
    """A check of the storages of an archive: none may claim more bytes than its record has."""

    def check_claim(key: str, num_bytes: int) -> None:
        if num_bytes > sizes.get(f"data/{key}", -1):
            raise UnsafeWeights(f"a tensor claims {num_bytes:,} bytes, more than its record has")

    return check_claim


def _inspect_old_format(path: Path, stub_prefixes: Sequence[str]) -> set[str]:
    """`inspect_pickle` of a file in the format before 1.6.

    It has five pickles: three identify the format, one has the objects, and one has the keys of the storages.
    """
    size, total = path.stat().st_size, 0
    with path.open("rb") as stream:
        beginning = io.BytesIO(stream.read(MAX_PICKLE_BYTES))

    def check_claim(_: str, num_bytes: int) -> None:
        nonlocal total
        total += num_bytes
        if total > size:
            raise UnsafeWeights(f"its tensors claim {total:,} bytes, more than the file has")

    pickle = PickleInspection(beginning, stub_prefixes, check_claim)
    for _ in range(5):
        pickle.follow()
    return pickle.shelled


@dataclass(frozen=True)
class _Global:
    """A function or class that a pickle names."""

    name: str


@dataclass(frozen=True)
class _Result:
    """The result of calling a function or class."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """The storage of some tensors: its key, its number of values and their kind."""

    key: str
    length: int
    kind: str


@dataclass(frozen=True)
class _Tuple:
    """A tuple, and its number of values, nested tuples included."""

    values: tuple[Any, ...]
    weight: int


ANYTHING, MARK = object(), object()
"""A value about which nothing needs to be known, and the mark at which a group of values begins."""


class PickleInspection:
    """Symbolic interpreter of the pickle opcodes that torch writes: no object is created, no function is called.

    Args:
        stream: the pickles, one after the other.
        stub_prefixes: beginnings of the names of classes that may be replaced by empty stubs.
        check_claim: called once for each storage, with its key and the number of bytes that it claims.

    Attributes:
        shelled: the names of the classes to be replaced by stubs.
        storages: the storages of the tensors, by their keys.
    """

    def __init__(
        self, stream: io.BytesIO, stub_prefixes: Sequence[str], check_claim: Callable[[str, int], None]
    ) -> None:
        self.shelled: set[str] = set()
        self._stream = stream
        self._stub_prefixes = tuple(stub_prefixes)
        self._check_claim = check_claim
        self.storages: dict[str, _Storage] = {}
        self._huge = 0

    def follow(self) -> None:
        """Interpret one pickle to its end. Raises `UnsafeWeights` if it is damaged or does what no weights need."""
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        try:
            for opcode, argument, _ in pickletools.genops(self._stream):
                self._step(opcode.name, argument)
        except UnsafeWeights:
            raise
        except (ValueError, IndexError, KeyError, OverflowError) as error:
            raise UnsafeWeights(f"the pickle in it is damaged: {short_message(error)[:80]}") from None

    def _step(self, opcode: str, argument: Any) -> None:
        stack = self._stack
        match opcode:
            case "PROTO" | "STOP":
                pass
            case "MARK":
                stack.append(MARK)
            case "GLOBAL":
                stack.append(self._global(argument))
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "REDUCE" | "NEWOBJ":
                arguments, function = stack.pop(), stack.pop()
                stack.append(self._call(function, arguments))
            case "BUILD":
                stack.pop()
                self._check_accepts_state(stack[-1])
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
                raise UnsafeWeights(f"its pickle uses {opcode}, which weights do not need")

    def _since_mark(self) -> list[Any]:
        mark = next(index for index in reversed(range(len(self._stack))) if self._stack[index] is MARK)
        values = self._stack[mark + 1 :]
        del self._stack[mark:]
        return values

    def _count_huge(self, number: int) -> None:
        self._huge += abs(number) >= 2**64
        if self._huge > MAX_HUGE_INTEGERS:
            raise UnsafeWeights(f"its pickle has more than {MAX_HUGE_INTEGERS:,} integers beyond 64 bits")

    def _global(self, argument: str) -> _Global:
        module, _, name = argument.partition(" ")
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))  # Python 2 names
        full_name = f"{module}.{name}"
        if full_name in STUBBED_CLASSES or (self._stub_prefixes and full_name.startswith(self._stub_prefixes)):
            self.shelled.add(full_name)
        elif full_name not in ALLOWED_CALLS and not STORAGE.fullmatch(full_name) and not DTYPE.fullmatch(full_name):
            raise UnsafeWeights(f"it names {full_name[:100]}, which weights do not need")
        return _Global(full_name)

    def _storage(self, persistent_id: Any) -> _Storage:
        """The storage that a persistent ID describes: the word `storage`, its kind, key, device and length."""
        match persistent_id:
            case _Tuple(values=("storage", _Global(name=name), str(key), _, int(length), *_)) if length >= 0:
                if (kind := STORAGE.fullmatch(name)) is not None:
                    storage = _Storage(key, length, kind[1])
                    if key not in self.storages:
                        self._check_claim(key, storage.length * BYTES_PER_VALUE[storage.kind])
                    if self.storages.setdefault(key, storage) != storage:
                        raise UnsafeWeights("two tensors describe the storage that they share differently")
                    return storage
        raise UnsafeWeights("it has a storage of an unknown kind")

    def _call(self, function: Any, arguments: Any) -> _Result:
        if not isinstance(function, _Global) or not isinstance(arguments, _Tuple):
            raise UnsafeWeights("its pickle calls an object that is not a named function or class")
        if function.name in TENSORS:
            _check_tensor(arguments.values)
        elif function.name == ENCODING and arguments.values[1:] != ("latin1",):
            raise UnsafeWeights("it has text in an unknown encoding")
        elif function.name not in ALLOWED_CALLS and function.name not in self.shelled:
            raise UnsafeWeights(f"it calls {function.name[:100]}, which weights do not need")
        return _Result(function.name)

    def _check_accepts_state(self, value: Any) -> None:
        if not isinstance(value, _Result) or value.name not in {"collections.OrderedDict", *self.shelled}:
            raise UnsafeWeights("its pickle sets the state of an object whose state weights do not need")


def _tuple(values: list[Any]) -> _Tuple:
    weight = sum(value.weight if isinstance(value, _Tuple) else 1 for value in values) + 1
    if weight > MAX_TUPLE_SIZE:
        raise UnsafeWeights(f"it has a tuple of more than {MAX_TUPLE_SIZE} values")
    return _Tuple(tuple(values), weight)


def _check_key(key: Any) -> None:
    if isinstance(key, _Tuple):
        raise UnsafeWeights("it has a tuple as a key, expected text")


def _check_tensor(arguments: tuple[Any, ...]) -> None:
    """Check that a tensor of this storage, offset, sizes and strides has no more values than its storage."""
    match arguments:
        case (_Storage() as storage, int(offset), _Tuple(values=sizes), _Tuple(values=strides), *_):
            numbers = (offset, *sizes, *strides)
            if len(sizes) == len(strides) and all(isinstance(number, int) and number >= 0 for number in numbers):
                last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
                count = math.prod(sizes)
                if count == 0 or (count <= storage.length and last < storage.length):
                    return
                raise UnsafeWeights(f"a tensor claims {count:,} values, more than its storage has")
    raise UnsafeWeights("it has a tensor of an unknown form")
