"""First stages that find little or nothing, and what they leave for `rerank`."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.errors import InputError
from pipeline.tables.candidates import plan_table
from pipeline.tables.config import InputConfig
from tests.retrieval.tables import config, make, write_texts
from tests.retrieval.test_flow import BOTH, PASSAGES, QUERIES, folder

__all__ = ["folder"]


@pytest.mark.parametrize("sources", [{"words": {"bm25": {}}}, BOTH])
def test_where_no_passage_can_be_used_no_query_has_a_candidate(folder: Path, sources: dict[str, Any]) -> None:
    write_texts(folder, dict.fromkeys(PASSAGES), QUERIES)
    for _ in range(2):  # the second start finds it finished
        summary = make(config(folder, sources=sources, output={"trec_run": True}))
        assert (summary.passages, summary.candidates, summary.unmatched) == (0, 0, 3)
        assert summary.rejected == {"null_passage": 4}
        assert "0 passages in" in summary.as_text()
        assert "no table to rerank" in summary.as_text()
    assert (folder / "out/run.trec").read_bytes() == b""
    with pytest.raises(InputError, match="is a whole output; that has no table"):
        plan_table(InputConfig(path=str(folder / "out")), {}, 100)


def test_a_source_can_t_have_the_tables_own_columns(folder: Path) -> None:
    with pytest.raises(ValidationError, match="sources.first_stage: the table has a first_stage_rank of its"):
        config(folder, sources=BOTH | {"first_stage": {"bm25": {}}})
    make(config(folder, sources={"first_stage": {"bm25": {}}}))  # alone it names no column
