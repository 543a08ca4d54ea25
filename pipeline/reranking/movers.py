"""The queries that moved most, with their texts, for the report."""

import pyarrow as pa

from pipeline import log
from pipeline.errors import InputError
from pipeline.reporting.report import MovedQuery
from pipeline.reporting.totals import Totals
from pipeline.reranking.config import RerankConfig
from pipeline.tables.candidates import Plan, read_shard
from pipeline.tables.format import candidate_format


def moved_queries(totals: Totals, plan: Plan, config: RerankConfig) -> list[MovedQuery]:
    """The job's movers with their texts, which are read again. They have none where the table holds ids alone
    and would be read whole, and where it is another one by now.
    """
    shards = {shard.name: shard for shard in plan.shards}
    texts: dict[str, pa.Table] = {}
    if candidate_format(config.input.format).TRAITS.holds_texts:
        for name in {name for name, _ in totals.movers}:
            try:
                rows, _ = read_shard(shards[name], config.input, config.kept, plan)
            except InputError as error:
                log.warning("the report lacks texts of queries that moved", because=error)
                break
            places = [
                at for of, each in totals.movers if of == name for at in (each.first_at, each.former_at)
            ]
            texts[name] = rows.select(["query", "passage"]).take(places)
    found = []
    for name, mover in totals.movers:
        first = former = {"query": None, "passage": None}
        if name in texts:
            first, former = texts[name].slice(0, 2).to_pylist()
            texts[name] = texts[name].slice(2)
        found.append(MovedQuery(mover, first["query"], first["passage"], former["passage"]))
    return found
