"""Tab-separated fields as they are, without quotes: MS MARCO's tables. Ids and all else are text.

An empty field is null. Where the file has no header line, the config names the columns.
"""

from collections.abc import Iterator, Sequence
from typing import IO, Any

from pipeline.errors import InputError
from pipeline.tables.input.text_lines import numbered_lines, with_compression

SUFFIXES = with_compression(".tsv", ".txt")


def rows(
    stream: IO[bytes], url: str, header: Sequence[str] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, column to value) of every line. Raises InputError for one of another width."""
    for _, number, line in numbered_lines(stream, 0, None, 1):
        fields = line.decode(errors="surrogateescape").rstrip("\r\n").split("\t")
        if header is None:
            header = [name.removeprefix("\ufeff") for name in fields]
        elif len(fields) != len(header):
            raise InputError(
                f"{url} line {number}: {len(fields)} fields, not {len(header)} ({', '.join(header)})"
            )
        else:
            yield number, {name: value or None for name, value in zip(header, fields, strict=True)}
