"""A job on a TREC run, some of whose texts can't be used: it goes on, and tells each once."""

import json
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.reranking import flow
from tests.reranking.jobs import config, data_of

CORPUS = '{"_id": "p1", "text": "because"}\n{"_id": "p2", "text": 2}\n{"_id": "p3", "te\n'
RUN = [("q1", "p1"), ("q1", "p2"), ("q2", "p1"), ("q2", "p3"), ("q3", "p1")]


def test_what_can_not_be_used_is_counted_and_kept_apart_whatever_the_shards(tmp_path: Path) -> None:
    queries = ({"_id": f"q{number}", "text": f"why {number}?"} for number in (1, 2))
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    (tmp_path / "corpus.jsonl").write_text(CORPUS)
    (tmp_path / "run.trec").write_text("".join(f"{query} Q0 {passage} 1 1 x\n" for query, passage in RUN))
    texts = {"queries": f"{tmp_path}/queries.jsonl", "passages": f"{tmp_path}/corpus.jsonl"}
    source = {"path": str(tmp_path / "run.trec"), "format": "trec", **texts}
    for out, shard_pairs, shards in (("many", 1, 3), ("one", 100, 1)):
        job = config(tmp_path / "run.trec", out, input=source, shard_pairs=shard_pairs)
        summary = flow.run(job)
        assert (summary.shards, summary.pairs, summary.kept) == (shards, 2, 2)
        assert summary.rejected == {
            "invalid_text": 1, "malformed_row": 1, "no_passage_text": 2, "no_query_text": 1
        }  # fmt: skip
        rejects = pq.read_table(tmp_path / out / "rejects").to_pylist()
        assert sorted((row["file"].rpartition("/")[2], row["row"]) for row in rejects) == [
            ("corpus.jsonl", 2), ("corpus.jsonl", 3), ("run.trec", 2), ("run.trec", 4), ("run.trec", 5)
        ]  # fmt: skip
        before = data_of(tmp_path / out)
        (tmp_path / out / "rejects/shard-000000.parquet").unlink()
        assert flow.run(job).rejected == summary.rejected
        assert data_of(tmp_path / out) == before
