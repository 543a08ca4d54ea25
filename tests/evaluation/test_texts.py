import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, InputError
from pipeline.evaluation.texts import Texts, read_texts
from tests.outputs import finish_run

WANTED = {"1": ["a"], "2": ["b", "c"]}
FOUND = Texts({"1": "one", "2": "two"}, {"a": "A", "b": "B"})


def test_of_a_candidate_table(tmp_path: Path) -> None:
    """What nobody shows is left out; ids are compared as text."""
    columns = {
        "query_id": [1, 1, 2, 3],
        "query": ["one", "one", "two", "three"],
        "passage_id": ["a", "x", "b", "y"],
        "passage": ["A", "X", "B", "Y"],
    }
    pq.write_table(pa.table(columns), tmp_path / "part-0.parquet")
    assert read_texts(str(tmp_path), WANTED) == FOUND


def test_of_a_run_that_kept_them(tmp_path: Path) -> None:
    kept = {"query": ["one", "two"], "passage": ["A", "B"]}
    columns = {"query_id": ["1", "2"], "passage_id": ["a", "b"], "rank": pa.array([1, 1], pa.int32()), **kept}
    assert read_texts(f"{finish_run(str(tmp_path / 'out'), pa.table(columns))}/run", WANTED) == FOUND


def test_of_a_jobs_input(tmp_path: Path) -> None:
    rows = [("1", "one", "a", "A"), ("2", "two", "b", "B")]
    lines = (json.dumps(dict(zip(("qid", "query", "pid", "text"), row, strict=True))) for row in rows)
    (tmp_path / "table.jsonl").write_text("\n".join(lines))
    columns = {"query_id": "qid", "passage_id": "pid", "passage": "text"}
    table = {"path": str(tmp_path / "table.jsonl"), "format": "jsonl", "columns": columns}
    (tmp_path / "job.yaml").write_text(json.dumps({"input": table, "scorer": {"model": "m"}}))
    assert read_texts(str(tmp_path / "job.yaml"), WANTED) == FOUND


def test_of_a_jobs_input_with_the_date_in_its_path(tmp_path: Path) -> None:
    """Whether the date stands in the file or is given; the job's other fields may have it, too."""
    columns = {"query_id": ["1"], "query": ["one"], "passage_id": ["a"], "passage": ["A"]}
    pq.write_table(pa.table(columns), tmp_path / "table-2026-11-20.parquet")
    job = {"input": {"path": f"{tmp_path}/table-{{run_date}}.parquet"}, "output": {"path": "o/{run_date}/"}}
    dated, undated = tmp_path / "dated.yaml", tmp_path / "undated.yaml"
    dated.write_text(json.dumps({**job, "run_date": "2026-11-20"}))
    undated.write_text(json.dumps(job))
    found = Texts({"1": "one"}, {"a": "A"})
    assert read_texts(str(dated), WANTED) == found
    assert read_texts(str(undated), WANTED, ["run_date=2026-11-20"]) == found
    with pytest.raises(ConfigError, match="needs the date: --set run_date="):
        read_texts(str(undated), WANTED)
    job["input"] = {"path": f"{tmp_path}/table-2026-11-20.parquet"}
    dated.write_text(json.dumps({**job, "run_date": "2026-11-20"}))  # the output alone has the date
    assert read_texts(str(dated), WANTED) == found


def test_what_is_no_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such file or directory"):
        read_texts(str(tmp_path / "nowhere"), WANTED)
    (tmp_path / "job.yaml").write_text("output: {path: out}\n")
    with pytest.raises(ConfigError, match="job.yaml: input: .*required"):
        read_texts(str(tmp_path / "job.yaml"), WANTED)
    (tmp_path / "docs.jsonl").write_text('{"_id": "1", "text": "one"}\n')
    with pytest.raises(
        InputError,
        match=r"--texts: .*docs.jsonl: not a readable Parquet.*file\. Give the folder candidates/ that",
    ) as refused:
        read_texts(str(tmp_path / "docs.jsonl"), WANTED)
    assert "--set" not in str(refused.value)
