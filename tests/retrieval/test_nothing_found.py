"""First stages that find little or nothing, and what they leave for `rerank`."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.errors import InputError, OutputError
from pipeline.tables.candidates import plan_table
from pipeline.tables.config import InputConfig
from tests.retrieval.tables import config, make, rows_of, write_jsonl, write_texts
from tests.retrieval.test_flow import BOTH, PASSAGES, folder

__all__ = ["folder"]


def test_where_no_query_has_a_candidate_there_is_no_table(folder: Path) -> None:
    write_texts(folder, PASSAGES, {"q1": "unheard", "q2": "unseen"})
    for _ in range(2):  # the second start finds it finished
        summary = make(config(folder, output={"trec_run": True}))
        assert (summary.passages, summary.candidates, summary.unmatched) == (4, 0, 2)
        assert "0 candidates of 0 queries" in summary.as_text()
        assert "no table to rerank" in summary.as_text()
    assert (folder / "out/run.trec").read_bytes() == b""
    with pytest.raises(InputError, match="is a whole output; that has no table"):
        plan_table(InputConfig(path=str(folder / "out")), {}, 100)


def test_a_table_without_a_usable_row_leaves_the_output_to_the_mended_one(folder: Path) -> None:
    rows = (None, "lost"), ("p2", 2), ("p3", None)
    write_jsonl(folder / "corpus.jsonl", [{"_id": id_, "text": text} for id_, text in rows])
    retrieve = config(folder)
    for _ in range(2):
        with pytest.raises(
            InputError, match=r"none of its rows .*1 invalid_text, 1 null_passage, .*start aga"
        ):
            make(retrieve)
        assert sorted(row["row"] for row in rows_of(folder, "out/rejects")) == [1, 2, 3]
    write_texts(folder, PASSAGES, {"q1": "panda"})
    summary = make(retrieve)
    assert (summary.passages, summary.candidates, summary.rejected) == (4, 2, {})
    assert not (folder / "out/rejects").exists()
    write_texts(folder, PASSAGES | {"p9": "more"}, {"q1": "panda"})
    with pytest.raises(OutputError, match="holds the output of another job"):
        make(retrieve)


def test_a_table_that_can_not_be_read_to_its_end_leaves_it_likewise(folder: Path) -> None:
    corpus = folder / "corpus"
    corpus.mkdir()
    write_jsonl(corpus / "1.jsonl", [{"_id": "p1", "text": "panda"}, {"_id": None, "text": "lost"}])
    write_jsonl(corpus / "2.jsonl", [{"_id": f"p{at}", "text": "panda"} for at in range(2, 2000)])
    with (corpus / "2.jsonl").open("a") as stream:
        stream.write("[" * 200 + "]" * 200 + "\n")  # beyond the rows that a plan looks at
    retrieve = config(folder, passages={"path": str(corpus), "format": "jsonl"})
    with pytest.raises(InputError, match=r"2.jsonl line 1999: it nests too deep"):
        make(retrieve)
    write_jsonl(corpus / "2.jsonl", [{"_id": "p2", "text": "panda"}])
    summary = make(retrieve)
    assert (summary.passages, summary.rejected) == (2, {"null_passage_id": 1})
    assert len(rows_of(folder, "out/rejects")) == 1


def test_a_source_can_t_have_the_tables_own_columns(folder: Path) -> None:
    with pytest.raises(ValidationError, match="sources.first_stage: the table has a first_stage_rank of its"):
        config(folder, sources=BOTH | {"first_stage": {"bm25": {}}})
    make(config(folder, sources={"first_stage": {"bm25": {}}}))  # alone it names no column
