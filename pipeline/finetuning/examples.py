"""Training rows as FlagEmbedding has them: checked once, before anything is trained, then read by number.

{"query": ..., "pos": [...], "neg": [...], "pos_scores": [...], "neg_scores": [...], "prompt": ...,
"query_prompt": ..., "passage_prompt": ...}, a row a line. What is good is kept in a file of this machine's
temporary folder, so that rows of compressed files and of object storage can be read in any order. Memory
holds a place a row.
"""

import json
import os
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, Any, Self

from pipeline.errors import InputError
from pipeline.finetuning.config import DataConfig
from pipeline.finetuning.sampling import Row
from pipeline.redaction import redacted
from pipeline.tables.input.cleaning import is_unicode
from pipeline.tables.input.compression import with_compression
from pipeline.tables.input.files import SourceFile, check_unchanged
from pipeline.tables.input.json_values import check_depth, parse
from pipeline.tables.input.listing import find_files
from pipeline.tables.input.text_file import open_text
from pipeline.tables.input.text_lines import first_line, numbered_lines
from pipeline.tables.input.training_row import SIDES, candidates_of

_SUFFIXES = with_compression(".jsonl", ".ndjson", ".json")
_PIECE_BYTES = 2**26
_PROMPTS = ("query_prompt", "passage_prompt", "prompt")


class Examples:
    """The good rows of all files, in the files' order, numbered from 0."""

    def __init__(self, spool: IO[bytes]) -> None:
        self._spool, self._places = spool, array("q", [0])
        self.rejects: list[dict[str, Any]] = []
        """A row each, as tables/schema.py has them: file, row, reason."""
        self.prompts: Counter[str] = Counter()
        """How many rows have a prompt of each kind of their own."""

    def __len__(self) -> int:
        return len(self._places) - 1

    def __getitem__(self, number: int) -> Row:
        start, stop = self._places[number], self._places[number + 1]
        fields: dict[str, Any] = json.loads(os.pread(self._spool.fileno(), stop - start, start))
        tuples: dict[str, Any] = {
            name: tuple(each) for name, each in fields.items() if isinstance(each, list)
        }
        return Row(**(fields | tuples))

    @property
    def rejected(self) -> dict[str, int]:
        """Rows by the reason for which they were refused."""
        return dict(Counter(str(row["reason"]) for row in self.rejects))

    def shipped(self) -> Iterator[bytes]:
        """What another process needs to have the rows, in pieces: `received` makes them whole there."""
        yield self._places.tobytes()
        for start in range(0, self._places[-1], _PIECE_BYTES):
            yield os.pread(self._spool.fileno(), _PIECE_BYTES, start)

    @classmethod
    def received(cls, pieces: Iterable[bytes], spool: IO[bytes]) -> Self:
        """The rows that another process has. Why it refused others stays there."""
        found = iter(pieces)
        examples = cls(spool)
        examples._places = array("q", next(found))
        spool.writelines(found)
        spool.flush()
        return examples

    def add(self, row: Row) -> None:
        fields = {name: value for name, value in vars(row).items() if value is not None}
        self.prompts.update(fields.keys() & set(_PROMPTS))
        line = json.dumps(fields).encode()
        self._spool.write(line)
        self._places.append(self._places[-1] + len(line))


def find(config: DataConfig) -> tuple[list[SourceFile], dict[str, str]]:
    """The files of training rows, and those left out with the reason."""
    return find_files(config.path, _SUFFIXES, _is_like)


@contextmanager
def checked(files: list[SourceFile], config: DataConfig, *, with_scores: bool) -> Iterator[Examples]:
    """Read all rows once. Raises InputError where none is good.

    with_scores: rows need a score for each of their passages.
    """
    with tempfile.TemporaryFile(prefix="rayrank-rows-") as spool:
        examples = Examples(spool)
        for file in files:
            check_unchanged(file.url, file.identity)
            for number, found in _rows(file, config, with_scores=with_scores):
                if isinstance(found, Row):
                    examples.add(found)
                else:
                    examples.rejects.append({"file": redacted(file.url), "row": number, "reason": found})
        spool.flush()
        if not len(examples):
            reasons = ", ".join(f"{count} {reason}" for reason, count in examples.rejected.items())
            raise InputError(
                f"{config.path}: has no row to train on ({reasons or 'no rows at all'}); a row is a line"
                ' {"query": "...", "pos": ["..."], "neg": ["..."]}'
                + (", with pos_scores and neg_scores for this loss" if with_scores else "")
            )
        yield examples


def _is_like(first: bytes) -> bool:
    line = first_line(first)
    return line.startswith(b"{") and b'"query"' in line and b'"pos"' in line


def _rows(file: SourceFile, config: DataConfig, *, with_scores: bool) -> Iterator[tuple[int, Row | str]]:
    """The number of each line, and the row on it, or why it is none: one of `schema.REASONS`."""
    with open_text(file.url, config.limits) as text:
        for _, number, line in numbered_lines(text, 0, None, 1):
            check_depth(line, f"{file.url} line {number}", config.limits)
            try:
                fields = parse(line)
            except (ValueError, RecursionError):
                fields = None
            yield number, _row(fields, with_scores=with_scores)


def _row(fields: Any, *, with_scores: bool) -> Row | str:
    if not isinstance(fields, dict):
        return "malformed_row"
    passages = "null_query" if fields.get("query") is None else candidates_of(fields)
    if isinstance(passages, str):
        return passages
    prompts: dict[str, Any] = {name: fields[name] for name in _PROMPTS if fields.get(name) is not None}
    if not all(map(_is_text, [fields["query"], *fields["pos"], *fields["neg"], *prompts.values()])):
        return "invalid_text"
    row = Row(fields["query"], tuple(fields["pos"]), tuple(fields["neg"]), **prompts)
    if not with_scores:
        return row
    if any(each["score"] is None for each in passages):
        return "no_scores"
    scores = {side: tuple(map(float, fields[f"{side}_scores"])) for side in SIDES}
    return replace(row, pos_scores=scores["pos"], neg_scores=scores["neg"])


def _is_text(value: object) -> bool:
    return isinstance(value, str) and is_unicode(value)
