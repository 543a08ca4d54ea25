"""A folder that the tests of the preparation read."""

from pathlib import Path

import pytest

from tests.preparation.tables import PASSAGES, QUERIES, texts, write_jsonl


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A BEIR folder and a run of three queries over three passages."""
    write_jsonl(tmp_path / "queries.jsonl", texts(QUERIES))
    corpus = [
        {**row, "title": f"Title {row['_id']}" if row["_id"] == "p2" else ""} for row in texts(PASSAGES)
    ]
    write_jsonl(tmp_path / "corpus.jsonl", corpus)
    (tmp_path / "qrels").mkdir()
    judged = "query-id\tcorpus-id\tscore\nq2\tp1\t1\nq1\tp2\t1\nq2\tp3\t0\n"
    (tmp_path / "qrels/test.tsv").write_text(judged)
    run = [f"{query} Q0 p{rank} {rank} {9 - rank}.5 bm25\n" for query in QUERIES for rank in (3, 1, 2)]
    (tmp_path / "run.trec").write_text("".join(run))
    return tmp_path
