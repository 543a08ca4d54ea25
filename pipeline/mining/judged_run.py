"""A run with what tells its positives: planned, read by query, and each query's passages chosen."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import output
from pipeline.errors import InputError, NotThereError
from pipeline.mining.config import JudgedRunConfig
from pipeline.mining.negatives import NO_POSITIVE, NO_SCORE, Candidate, Choice, choose
from pipeline.ranking import query_numbers, ranks
from pipeline.tables.candidates import Plan, plan_table
from pipeline.tables.input.numeric_columns import as_numbers, as_scores, may_hold_numbers
from pipeline.tables.output.training_rows import training_row
from pipeline.tables.positives import are_positive, check_label
from pipeline.tables.table_files import directory_of

_NOWHERE = 2**53
"""The rank of what has none, behind all others."""


def plan_run(config: JudgedRunConfig, shard_pairs: int) -> Plan:
    """The run's shards; judgments are among the files that the output depends on.

    Raises InputError for what can't be read, and where scores, ranks or labels can be no numbers.
    """
    table = directory_of(config.input)
    digests = {} if table is None else output.digests(table)
    try:
        plan = plan_table(config.input, config.kept, shard_pairs, digests=digests)
    except NotThereError:
        raise
    except InputError as error:  # of a column that is not there: readers know the field that `rerank` has
        told = error.message.replace("output.keep_columns", "score, rank or positives.label")
        raise InputError(told, field=error.field) from error
    _check_columns(config, plan.schema.field("kept").type)
    return replace(plan, beside=(*plan.beside, *config.positives.files()))


def choices(candidates: pa.Table, config: JudgedRunConfig) -> Iterator[tuple[Any, str, Choice]]:
    """(id, text, choice) of each query. candidates: of whole queries, as `read_shard` gives them."""
    for query_id, query, theirs, without_score in _by_query(candidates, config):
        choice = choose(str(query_id), query, theirs, config.negatives)
        if choice.reason == NO_POSITIVE and without_score:
            choice = choice._replace(reason=NO_SCORE)
        yield query_id, query, choice


def line_of(query: str, choice: Choice) -> bytes:
    """The training row of a choice that has no reason to be left out."""
    pos, neg = (
        [(each.passage, each.score) for each in side] for side in (choice.positives, choice.negatives)
    )
    return training_row(query, pos, neg, {})


def _check_columns(config: JudgedRunConfig, types: pa.StructType) -> None:
    """Raises InputError where scores, ranks or labels can be no numbers."""
    check_label(config.positives.label, types, "positives.label")
    for field, name in (("score", config.score), ("rank", config.rank)):
        kind = None if name is None else types.field(name).type
        if kind is not None and not may_hold_numbers(kind):
            raise InputError(
                f"{field}: column {name!r} holds {kind}; name the column of the {field}s, numbers",
                field=field,
            )


def _by_query(
    candidates: pa.Table, config: JudgedRunConfig
) -> Iterator[tuple[Any, str, list[Candidate], bool]]:
    """(id, text, candidates with a score, whether a positive has none) of each query.

    A candidate without a score is neither side's.
    """
    given = pc.struct_field(candidates["kept"].combine_chunks(), config.score)
    scores, finite = as_numbers(given), as_scores(given).is_valid()  # a score has room in float32
    usable, scores = candidates.filter(finite), scores.filter(finite)
    places = _ranks(usable, scores, config)
    positive = are_positive(usable.append_column("rank", places), config.positives)
    numbers, has_score = query_numbers(candidates["query_id"]), finite.to_numpy(zero_copy_only=False)
    lacking = _positives_without_score(candidates.filter(pc.invert(finite)), numbers[~has_score], config)
    columns = (usable[name].to_pylist() for name in ("passage_id", "passage"))
    rows = zip(
        numbers[has_score],
        *columns,
        places.to_pylist(),
        scores.to_pylist(),
        positive.tolist(),
        strict=True,
    )
    found = {
        number: [Candidate(str(row[1]), *row[2:]) for row in group]
        for number, group in groupby(rows, itemgetter(0))
    }
    firsts = np.unique(numbers, return_index=True)[1]
    for number, at in enumerate(firsts.tolist()):
        row = candidates.slice(at, 1).select(["query_id", "query"]).to_pylist()[0]
        yield row["query_id"], row["query"], found.get(number, []), number in lacking


def _positives_without_score(
    candidates: pa.Table, numbers: npt.NDArray[np.int64], config: JudgedRunConfig
) -> set[int]:
    """The numbers of the queries that have some. candidates: those without a score, which have no rank."""
    ranked = candidates.append_column("rank", pa.repeat(_NOWHERE, len(candidates)))
    return set(numbers[are_positive(ranked, config.positives)].tolist())


def _ranks(candidates: pa.Table, scores: pa.Array, config: JudgedRunConfig) -> pa.Array:
    """Where the run's own column tells none, one that is in no window."""
    if config.rank is None:
        return ranks(candidates["query_id"], candidates["passage_id"], scores.cast(pa.float32(), safe=False))
    own = as_numbers(pc.struct_field(candidates["kept"].combine_chunks(), config.rank))
    return pc.fill_null(own, float(_NOWHERE)).cast(pa.int64(), safe=False)
