import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import InputError
from pipeline.evaluation.runs import RunRow, read_whole_run
from pipeline.output import finish, write_record
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.run import parquet_bytes, write_shard
from tests.reporting.reports import summary
from tests.tables.output.test_run import NONE_REJECTED, ranked
from tests.test_output import RECORD


def test_a_trec_run_is_read_by_its_scores(tmp_path: Path) -> None:
    (tmp_path / "run.trec").write_text("q Q0 b 1 0.100000001 tag\nq Q0 a 2 -1 tag\n")
    rows = [RunRow("q", "b", 0.100000001), RunRow("q", "a", -1)]
    assert read_whole_run(str(tmp_path / "run.trec")) == (rows, None)


def test_marks_line_ends_and_blank_lines_change_nothing(tmp_path: Path) -> None:
    data = "\ufeffq Q0 b 1 2 tag\r\n\r\n\ufeffq Q0 a 2 1 tag\r\n".encode()
    (tmp_path / "run.gz").write_bytes(gzip.compress(data))
    rows = [RunRow("q", "b", 2.0), RunRow("q", "a", 1.0)]
    assert read_whole_run(str(tmp_path / "run.gz")) == (rows, None)


def test_a_finished_job_is_read_by_its_ranks(tmp_path: Path) -> None:
    output = Directory(str(tmp_path))
    write_shard(output, "s", ranked(), NONE_REJECTED)
    with pytest.raises(InputError, match="no finished run .no _SUCCESS in it"):
        read_whole_run(str(tmp_path))
    write_record(output, RECORD.model_copy(update={"command": "prepare"}))
    with pytest.raises(InputError, match="is an output of prepare, and no run"):
        read_whole_run(str(tmp_path))
    write_record(output, RECORD.model_copy(update={"config": {"output.top_k": 2}}))
    with pytest.raises(InputError, match="no finished run .no _SUCCESS in it"):
        read_whole_run(str(tmp_path))
    finish(output, summary(), [], complete=True)
    assert read_whole_run(str(tmp_path)) == ([RunRow("q", "b", -1), RunRow("q", "a", -2)], 2)


def finished(path: Path, run: pa.Table) -> str:
    output = Directory(str(path))
    output.write("run/s.parquet", parquet_bytes(run, "run"))
    write_record(output, RECORD.model_copy(update={"config": {"output.top_k": None}}))
    finish(output, summary(), [], complete=True)
    return output.url


def test_a_jobs_rows_are_checked_as_a_trec_runs_are(tmp_path: Path) -> None:
    ranks = pa.array([1, 2], pa.int32())
    twice = pa.table({"query_id": [7, 7], "passage_id": ["a", "a"], "rank": ranks})
    with pytest.raises(
        InputError, match=r"s.parquet row 2: passage 'a' of query '7' .* after .*parquet row 1"
    ):
        read_whole_run(finished(tmp_path / "twice", twice))
    binary = pa.table({"query_id": ["q", "q"], "passage_id": [b"a", b"\xff"], "rank": ranks})
    with pytest.raises(InputError, match=r"s.parquet row 2: .* is no UTF-8 text"):
        read_whole_run(finished(tmp_path / "binary", binary))
    url = finished(tmp_path / "damaged", twice)
    (tmp_path / "damaged/run/s.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="run/s.parquet: is damaged"):
        read_whole_run(url)
