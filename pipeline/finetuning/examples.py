"""The rows to train on: checked once, before anything is trained, then read by number.

What is good is kept in a file of this machine's temporary folder, so that rows of compressed files, of object
storage and of a run can be read in any order. Memory holds a place a row.
"""

import json
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from typing import IO, Any, Self

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.finetuning.checked_row import same_query
from pipeline.finetuning.config import DataConfig
from pipeline.finetuning.mined_rows import LeftOut, MinedRows
from pipeline.finetuning.prompts import RowPrompts
from pipeline.finetuning.row_files import RowFiles
from pipeline.finetuning.sampling import Row
from pipeline.tables.schema import rejects_schema
from pipeline.temporary_folder import spool

_TEXT_IDS = (pa.string(), pa.string())
_PIECE_BYTES = 2**26
KEPT = "the rows to train on can't be kept"
"""Where the temporary folder has no room for them."""


class Examples:
    """The good rows of all files or of a run, in their order, numbered from 0."""

    def __init__(
        self,
        spool: IO[bytes],
        id_types: tuple[pa.DataType, ...] = _TEXT_IDS,
        held_out: Set[str] = frozenset(),
    ) -> None:
        """id_types: of query_id and passage_id, where rows have some. held_out: queries, by `same_query`."""
        self._spool, self._places = spool, array("q", [0])
        self.rejects: list[dict[str, Any]] = []
        """A row each, as tables/schema.py has them: file, row, reason."""
        self.left_out: list[LeftOut] = []
        """The queries of a run that give no row."""
        self._id_types = id_types
        self.prompts = RowPrompts()
        self._held_out = held_out
        self.held_out = 0
        """How many rows have a query that is held out, so that its measure is too good."""

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

    @property
    def first_reject(self) -> str:
        """Its file, row and reason, for people. There is one."""
        return "{file} row {row}, {reason}".format_map(self.rejects[0])

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

    @property
    def queries_left_out(self) -> dict[str, int]:
        """The same of a run's queries."""
        return dict(Counter(each.reason for each in self.left_out))

    def tables(self) -> dict[str, pa.Table]:
        """What is not trained on, by the name of the output's folder for it; none that would be empty."""
        rejects = pa.Table.from_pylist(self.rejects, schema=rejects_schema(*self._id_types))
        left_out = pa.table(
            {
                "query_id": pa.array([each.query_id for each in self.left_out], self._id_types[0]),
                "reason": pa.array([each.reason for each in self.left_out], pa.string()),
            }
        )
        return {name: each for name, each in (("rejects", rejects), ("unmatched", left_out)) if len(each)}

    def take(self, found: Row | dict[str, Any] | LeftOut) -> None:
        """What a source gives."""
        if isinstance(found, Row):
            self._add(found)
        elif isinstance(found, LeftOut):
            self.left_out.append(found)
        else:
            self.rejects.append(found)

    def _add(self, row: Row) -> None:
        fields = {name: value for name, value in vars(row).items() if value is not None}
        self.prompts.add(row)
        self.held_out += same_query(row.query) in self._held_out
        line = json.dumps(fields).encode()
        self._spool.write(line)
        self._places.append(self._places[-1] + len(line))


def find(config: DataConfig) -> RowFiles | MinedRows:
    """Where the rows are. Raises InputError where nothing is."""
    if config.mined is not None:
        return MinedRows(config.mined)
    assert config.path is not None
    return RowFiles(config.path, config.limits)


@contextmanager
def checked(
    source: RowFiles | MinedRows,
    config: DataConfig,
    *,
    with_scores: bool,
    held_out: Set[str] = frozenset(),
) -> Iterator[Examples]:
    """Read all rows once. Raises InputError where none is good.

    with_scores: rows need a score for each of their passages. held_out: queries, by `same_query`.
    """
    id_types = source.id_types if isinstance(source, MinedRows) else _TEXT_IDS
    with spool(KEPT) as file:
        examples = Examples(file, id_types, held_out)
        for found in source.rows(with_scores=with_scores):
            examples.take(found)
        file.flush()
        if not len(examples):
            raise _without_rows(examples, config, with_scores=with_scores)
        yield examples


def _without_rows(examples: Examples, config: DataConfig, *, with_scores: bool) -> InputError:
    counts = examples.rejected | examples.queries_left_out
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "no rows at all"
    if examples.rejects:
        reasons += f"; the first: {examples.first_reject}"
    way_out = 'a row is a line {"query": "...", "pos": ["..."], "neg": ["..."]}'
    if with_scores:
        way_out += ", with pos_scores and neg_scores for this loss"
    if config.mined is not None:
        way_out = (
            "data.mined.positives tells which candidates are positives, data.mined.negatives which are not"
        )
    return InputError(f"{config.source}: has no row to train on ({reasons}); {way_out}")
