"""The tables of a report that counts images, for Markdown and the report of a study; warnings are footnotes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corelib.evaluation.seed_statistics import pooled
from corelib.reports.count_lines import CountLine


@dataclass(frozen=True)
class CountCell:
    """A count of all styles and seeds together as text, with a footnote if there is a warning about it.

    Attributes:
        share: the count, and the share in percent; empty if there is no such count.
        interval: the 95 % interval of the share.
        number: number of the footnote; None without one.
        note: the warning; empty without one.
    """

    share: str = ""
    interval: str = ""
    number: int | None = None
    note: str = ""

    @property
    def text(self) -> str:
        """The share with its interval."""
        return f"{self.share} ({self.interval})" if self.share else ""


@dataclass(frozen=True)
class CountTable:
    """A table of counts.

    Attributes:
        title: what the counts are about.
        heads: the heads of the columns before the counts, without that of the first column.
        columns: the heads of the columns of counts.
        rows: the entries of each row before its counts, and the cells in the order of the columns.
    """

    title: str
    heads: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[tuple[Sequence[str], Sequence[CountCell]]]

    @property
    def notes(self) -> Mapping[int, str]:
        """The footnotes of the table."""
        return {cell.number: cell.note for _, cells in self.rows for cell in cells if cell.number is not None}


class CellWriter:
    """Writes counts as cells, and numbers the footnotes of a report from 1. Equal warnings share a footnote."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def cell(self, line: CountLine | None) -> CountCell:
        """The cell of a line; an empty one if there is no such line."""
        if line is None:
            return CountCell()
        count, (low, high), note = pooled(line.counts()), line.interval(), line.remark
        number = self._numbers.setdefault(note, len(self._numbers) + 1) if note else None
        return CountCell(f"{count.k} of {count.n}: {count.percent:.1f}", f"{low:.1f} to {high:.1f}", number, note)


def tables_as_markdown(tables: Sequence[CountTable], first: str) -> list[str]:
    """Each table as a section of a Markdown page.

    Args:
        tables: the tables.
        first: the head of the first column.
    """
    sections = []
    for table in tables:
        heads = [first, *table.heads]
        rows = [[*heads, *table.columns], ["---"] * len(heads) + ["---:"] * len(table.columns)]
        rows += [
            [*(entry.replace("|", "\\|") for entry in entries), *map(_with_mark, cells)]
            for entries, cells in table.rows
        ]
        lines = "\n".join("| " + " | ".join(row) + " |" for row in rows)
        sections.append(f"## {table.title}\n\n{lines}")
    return sections


def notes_as_markdown(tables: Sequence[CountTable]) -> list[str]:
    """The footnotes of some tables, each once."""
    notes = {number: note for table in tables for number, note in table.notes.items()}
    return [f"[^{number}]: {note}." for number, note in notes.items()]


def _with_mark(cell: CountCell) -> str:
    return cell.text if cell.number is None else f"{cell.text}[^{cell.number}]"
