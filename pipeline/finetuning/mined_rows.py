"""Training rows from a run with judgments: what `mine` would write, without the files in between."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from pipeline.errors import fields_under
from pipeline.finetuning.checked_row import checked_row
from pipeline.finetuning.sampling import Row
from pipeline.mining.config import JudgedRunConfig
from pipeline.mining.judged_run import choices, line_of, plan_run
from pipeline.tables.candidates import read_shard
from pipeline.tables.input.json_values import parse

_SHARD_PAIRS = 20_000
"""What is in memory at once. The rows and their order do not depend on it."""


class LeftOut(NamedTuple):
    """A query that gives no row, and why: one of mining's reasons."""

    query_id: Any
    reason: str


class MinedRows:
    """The rows of a run, a query each, in its order."""

    def __init__(self, config: JudgedRunConfig) -> None:
        """Raises InputError where the run or its judgments can't be read."""
        self._config = config
        with fields_under("data.mined"):
            self._plan = plan_run(config, _SHARD_PAIRS)
        self.identities, self.skipped = self._plan.identities(), self._plan.skipped
        self.version = self._plan.version
        self.id_types = tuple(self._plan.schema.field(name).type for name in ("query_id", "passage_id"))

    def rows(self, *, with_scores: bool) -> Iterator[Row | dict[str, Any] | LeftOut]:
        """Each query's row, or why it has none, and the rejects of the run, as `schema` has them."""
        for shard in self._plan.shards:
            candidates, rejects = read_shard(shard, self._config.input, self._config.kept, self._plan)
            yield from rejects.to_pylist()
            for query_id, query, choice in choices(candidates, self._config):
                if choice.reason is not None:
                    yield LeftOut(query_id, choice.reason)
                    continue
                row = checked_row(parse(line_of(query, choice)), with_scores=with_scores)
                assert isinstance(row, Row), row  # a candidate is a text, and has a score
                yield row
