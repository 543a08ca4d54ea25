"""Training rows from files, a row a line, compressed or not, wherever they lie."""

from collections.abc import Iterator
from typing import Any

from pipeline.errors import InputError
from pipeline.finetuning.checked_row import checked_row
from pipeline.finetuning.sampling import Row
from pipeline.redaction import redacted
from pipeline.tables.input.compression import with_compression
from pipeline.tables.input.files import SourceFile, unchanged
from pipeline.tables.input.json_values import check_depth, parse
from pipeline.tables.input.limits import Limits
from pipeline.tables.input.listing import find_files
from pipeline.tables.input.text_file import open_text
from pipeline.tables.input.text_lines import first_line, numbered_lines

_SUFFIXES = with_compression(".jsonl", ".ndjson", ".json")
_BEFORE_JSON = b"\xef\xbb\xbf \t"


class RowFiles:
    """All files of a path, in their order."""

    def __init__(self, path: str, limits: Limits) -> None:
        """Raises InputError where there are none."""
        self._files, self.skipped = find_files(path, _SUFFIXES, _is_like)
        self._limits = limits
        self.identities = {file.url: file.identity for file in self._files}

    def rows(self, *, with_scores: bool) -> Iterator[Row | dict[str, Any]]:
        """Each row, or the reject that it is: file, row, reason. Raises InputError for a JSON array."""
        for file in self._files:
            with unchanged(file.url, file.identity):
                for number, found in self._of(file, with_scores=with_scores):
                    if isinstance(found, Row):
                        yield found
                    else:
                        yield {"file": redacted(file.url), "row": number, "reason": found}

    def _of(self, file: SourceFile, *, with_scores: bool) -> Iterator[tuple[int, Row | str]]:
        with open_text(file.url, self._limits) as text:
            for place, (_, number, line) in enumerate(numbered_lines(text, 0, None, 1)):
                if place == 0 and line.lstrip(_BEFORE_JSON).startswith(b"["):
                    raise InputError(
                        f"{file.url}: a JSON array; rows are objects, one a line: jq -c '.[]' makes them"
                    )
                check_depth(line, f"{file.url} line {number}", self._limits)
                try:
                    fields = parse(line)
                except (ValueError, RecursionError):
                    fields = None
                yield number, checked_row(fields, with_scores=with_scores)


def _is_like(first: bytes) -> bool:
    line = first_line(first)
    return line.startswith(b"{") and b'"query"' in line and b'"pos"' in line
