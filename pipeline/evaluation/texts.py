"""The texts of queries and passages, for people who look at runs: from a candidate table."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import chain
from pathlib import Path

import pyarrow as pa
from pydantic import ConfigDict

from pipeline.config_file import load
from pipeline.errors import InputError
from pipeline.run_date import Dated
from pipeline.tables.candidates import Plan, plan_table, read_shard
from pipeline.tables.config import InputConfig
from pipeline.tables.output.run import id_text

_SHARD_PAIRS = 20_000
"""Candidates that are in memory at once."""


@dataclass(frozen=True)
class Texts:
    """By id. What the table does not hold is missing."""

    queries: dict[str, str] = field(default_factory=dict)
    passages: dict[str, str] = field(default_factory=dict)


class _Job(Dated):
    """A job's config, of which the table alone matters here."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    input: InputConfig
    run_date: date | None = None

    @classmethod
    def is_place(cls, name: str) -> bool:
        """Of the rest of the config, any text may have the date."""
        return not name.startswith("input.columns")


def read_texts(source: str, wanted: Mapping[str, Iterable[str]], overrides: Sequence[str] = ()) -> Texts:
    """The texts of these queries and their passages.

    source: a candidate table in Parquet with our column names, such as OUTPUT/candidates/, or a job's YAML
    file, whose `input` tells the table. overrides: of that file's fields. Raises ConfigError or InputError
    where it can't be read.
    """
    config, plan = _planned(source, overrides)
    found = Texts()
    passage_ids = set(chain.from_iterable(wanted.values()))
    for shard in plan.shards:
        candidates, _ = read_shard(shard, config, {}, plan)
        found.queries.update(_known(candidates, "query", wanted.keys()))
        found.passages.update(_known(candidates, "passage", passage_ids))
    return found


def is_job(source: str) -> bool:
    return source.endswith((".yaml", ".yml"))


def _planned(source: str, overrides: Sequence[str]) -> tuple[InputConfig, Plan]:
    if is_job(source):
        config = load(_Job, Path(source), list(overrides)).input
        return config, plan_table(config, {}, _SHARD_PAIRS)
    config = InputConfig(path=source)
    try:
        return config, plan_table(config, {}, _SHARD_PAIRS)
    except InputError as error:
        # Its cause, where there is one, is without the advice to set a field of a job's config.
        cause = error.__cause__ if isinstance(error.__cause__, InputError) else error
        raise InputError(
            f"--texts: {cause}. Give the folder candidates/ that retrieve or prepare wrote, or a job's YAML"
            " file, whose input tells another table's path, format and columns"
        ) from error


def _known(candidates: pa.Table, column: str, wanted: Collection[str]) -> dict[str, str]:
    """The texts of a column, by the ids beside it."""
    ids = [id_text(value) for value in candidates[f"{column}_id"].to_pylist()]
    places = {value: place for place, value in enumerate(ids) if value in wanted}
    texts = candidates[column].take(pa.array(places.values(), pa.int64())).to_pylist()
    return dict(zip(places, texts, strict=True))
