"""Untrusted parquet files, read within limits.

A file can declare a wrong size, which shows only when its pages are decompressed: a few bytes can expand to any number
of rows and to gigabytes. The number of rows is therefore checked first, and reading may allocate no more memory than
the largest of our files could need.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from corelib.errors import short_message

MAX_ROWS = 2_000_000
"""Maximum number of rows of a file; the benchmark has 24,400 images in total."""

MAX_MEMORY_BYTES = 8 * 2**30
"""Maximum memory for reading, in bytes. A row group of the Hub's files has 0.3 billion, which are briefly in memory
twice."""


class UnreadableParquet(ValueError):
    """A parquet file cannot be read. The message is a clause without a full stop, to be used in a sentence."""


@contextmanager
def limited_reading() -> Iterator[None]:
    """Limit the memory of the block; raise its reading errors and exceeding the limit as `UnreadableParquet`."""
    try:
        with limit_memory(MAX_MEMORY_BYTES):
            yield
    except MemoryError:
        raise UnreadableParquet(f"it takes more than {MAX_MEMORY_BYTES:,} bytes of memory") from None
    except UnreadableParquet:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UnreadableParquet(short_message(error)) from None


@contextmanager
def limit_memory(extra_bytes: int) -> Iterator[None]:
    """Let the block allocate at most `extra_bytes` more than the process has; a larger allocation fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    current_bytes = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5]) * resource.getpagesize()
    limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([current_bytes + extra_bytes, *limits]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def open_parquet(path: Path, columns: Mapping[str, pa.DataType]) -> pq.ParquetFile:
    """Open a parquet file and check the types of its columns.

    Raises `UnreadableParquet` if a column is missing or has another type, or if the file has too many rows.
    """
    with limited_reading():
        if path.exists() and not path.is_file():
            raise UnreadableParquet("it is not a regular file")
        file = pq.ParquetFile(path)
        if not 0 <= file.metadata.num_rows <= MAX_ROWS:
            raise UnreadableParquet(f"it has {file.metadata.num_rows:,} rows, expected at most {MAX_ROWS:,}")
        for name, expected in columns.items():
            actual = file.schema_arrow.field(name).type if name in file.schema_arrow.names else None
            if actual is None or not _is_compatible(actual, expected):
                description = "missing" if actual is None else str(actual)[:60]
                raise UnreadableParquet(f"its column `{name}` is {description}, expected {expected}")
        return file


def _is_compatible(actual: pa.DataType, expected: pa.DataType) -> bool:
    """Whether a type is the expected one or the same with longer offsets; a struct may have further fields."""
    if pa.types.is_struct(expected):
        return pa.types.is_struct(actual) and all(
            actual.get_field_index(field.name) >= 0 and _is_compatible(actual.field(field.name).type, field.type)
            for field in expected.fields
        )
    wider = {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}
    return actual in (expected, wider.get(expected))
