"""First stages that find little or nothing, and what they leave for `rerank`."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.errors import InputError
from pipeline.tables.candidates import plan_table
from pipeline.tables.config import InputConfig
from tests.retrieval.tables import config, make, write_texts
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


def test_a_source_can_t_have_the_tables_own_columns(folder: Path) -> None:
    with pytest.raises(ValidationError, match="sources.first_stage: the table has a first_stage_rank of its"):
        config(folder, sources=BOTH | {"first_stage": {"bm25": {}}})
    make(config(folder, sources={"first_stage": {"bm25": {}}}))  # alone it names no column
