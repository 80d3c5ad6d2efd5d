"""Parquet files from anywhere, read within bounds.

What a file says of its size may be a lie that shows only when its pages are unpacked: a few bytes can stand for any
number of rows, and for gigabytes. So rows are counted before, and reading is given no more memory than the largest of
our files could take.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from corelib.errors import reason_of

MOST_ROWS = 2_000_000
"""Of a file; the benchmark has 24,400 images in all."""

MOST_MEMORY = 8 * 2**30
"""Bytes that reading may take. A row group of the Hub's has 0.3 billion, which are there twice for a moment."""


class UnreadableParquet(ValueError):
    """Why a file is not read: some words for within a sentence."""


@contextmanager
def reading_within_bounds() -> Iterator[None]:
    """What goes wrong in reading is an `UnreadableParquet`, too large a file among it."""
    try:
        with memory_for(MOST_MEMORY):
            yield
    except MemoryError:
        raise UnreadableParquet(f"it takes more than {MOST_MEMORY:,} bytes of memory") from None
    except UnreadableParquet:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UnreadableParquet(reason_of(error)) from None


@contextmanager
def memory_for(more: int) -> Iterator[None]:
    """While the block runs, this process gets only so many bytes more than it has; who asks for others is refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    has = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5]) * resource.getpagesize()
    limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([has + more, *limits]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def open_parquet(path: Path, columns: Mapping[str, pa.DataType]) -> pq.ParquetFile:
    """A parquet file with columns of some types. Raises `UnreadableParquet` if it lacks one, or has too many rows."""
    with reading_within_bounds():
        if path.exists() and not path.is_file():
            raise UnreadableParquet("it is no regular file")
        file = pq.ParquetFile(path)
        if not 0 <= file.metadata.num_rows <= MOST_ROWS:
            raise UnreadableParquet(f"it has {file.metadata.num_rows:,} rows, expected at most {MOST_ROWS:,}")
        for name, expected in columns.items():
            found = file.schema_arrow.field(name).type if name in file.schema_arrow.names else None
            if found is None or not _is_like(found, expected):
                there = "no column" if found is None else f"{str(found)[:60]} as column"
                raise UnreadableParquet(f"it has {there} `{name}`, expected {expected}")
        return file


def _is_like(found: pa.DataType, expected: pa.DataType) -> bool:
    """Whether a type is the expected one, or the same with longer offsets; a structure may have further fields."""
    if pa.types.is_struct(expected):
        return pa.types.is_struct(found) and all(
            found.get_field_index(field.name) >= 0 and _is_like(found.field(field.name).type, field.type)
            for field in expected.fields
        )
    wider = {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}
    return found in (expected, wider.get(expected))
