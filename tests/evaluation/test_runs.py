import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import InputError
from pipeline.evaluation.runs import RunRow, by_query, read_whole_run
from pipeline.job_record import write_record
from pipeline.tables.output.directory import Directory
from tests.outputs import finish_run
from tests.tables.output.test_run import ranked
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
    with pytest.raises(InputError, match="no finished run .no _SUCCESS in it"):
        read_whole_run(str(tmp_path))
    write_record(output, RECORD.model_copy(update={"command": "prepare"}))
    with pytest.raises(InputError, match="is an output of prepare, not a run"):
        read_whole_run(str(tmp_path))
    write_record(output, RECORD.model_copy(update={"config": {"output.top_k": 2}}))
    with pytest.raises(InputError, match="no finished run .no _SUCCESS in it"):
        read_whole_run(str(tmp_path))
    url = finish_run(f"{tmp_path}/finished", ranked(0.5).drop_columns("kept"), top_k=2)
    assert read_whole_run(url) == ([RunRow("q", "b", -1, 0.5), RunRow("q", "a", -2, 0.5)], 2)


def test_of_a_first_stage_its_trec_run_is_named(tmp_path: Path) -> None:
    write_record(Directory(str(tmp_path)), RECORD.model_copy(update={"command": "retrieve"}))
    with pytest.raises(InputError, match="of retrieve, not a run; with output.trec_run: true it has one"):
        read_whole_run(str(tmp_path))
    (tmp_path / "run.trec").write_text("q Q0 p 1 1 x\n")
    with pytest.raises(InputError, match=f"of retrieve, not a run; its run is {tmp_path}/run.trec$"):
        read_whole_run(str(tmp_path))


def test_a_querys_rows_stand_best_first() -> None:
    rows = [RunRow("q", "a", 1.0), RunRow("p", "a", 5.0), RunRow("q", "b", 2.0), RunRow("q", "c", 2.0)]
    ranking = by_query(rows)
    assert [row.passage_id for row in ranking["q"]] == ["c", "b", "a"]
    assert ranking["p"] == [rows[1]]


def test_a_run_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder or file; a run is the output.path of a"):
        read_whole_run(str(tmp_path / "nowhere"))
    (tmp_path / "link").symlink_to("nothing")
    with pytest.raises(InputError, match="link: a symbolic link to what is not there .nothing.; a run is"):
        read_whole_run(str(tmp_path / "link"))


def test_a_jobs_rows_are_checked_as_a_trec_runs_are(tmp_path: Path) -> None:
    ranks = {"rank": pa.array([1, 2], pa.int32()), "score": pa.array([0.5, 0.5], pa.float32())}
    twice = pa.table({"query_id": [7, 7], "passage_id": ["a", "a"], **ranks})
    with pytest.raises(
        InputError, match=r"run/shard-000000.parquet row 2: passage 'a' of query '7' .* after .*parquet row 1"
    ):
        read_whole_run(finish_run(f"{tmp_path}/twice", twice))
    binary = pa.table({"query_id": ["q", "q"], "passage_id": [b"a", b"\xff"], **ranks})
    with pytest.raises(InputError, match=r"shard-000000.parquet row 2: .* is no UTF-8 text"):
        read_whole_run(finish_run(f"{tmp_path}/binary", binary))


def test_a_run_that_is_not_whole_is_no_run(tmp_path: Path) -> None:
    """Seen by the manifest where a listing tells it, by the marker's digest where bytes alone do."""
    table = ranked().drop_columns("kept")
    url = finish_run(f"{tmp_path}/out", table, ranked(0.2).drop_columns("kept"))
    first, second = (tmp_path / f"out/run/shard-00000{index}.parquet" for index in (0, 1))
    whole = first.read_bytes()
    for data, told in (
        (None, "is missing"),
        (b"PAR1", f"has 4 bytes, and {len(whole)} were written"),
        (second.read_bytes(), "is damaged, it holds other bytes than its marker says"),
        (whole[:100] + bytes([whole[100] ^ 1]) + whole[101:], "is damaged, it holds other bytes"),
    ):
        first.unlink() if data is None else first.write_bytes(data)
        with pytest.raises(InputError, match=f"run/shard-000000.parquet: {told}.*; start its job again"):
            read_whole_run(url)
    first.write_bytes(whole)
    (tmp_path / "out/run/more.parquet").write_bytes(whole)
    with pytest.raises(InputError, match=r"run/more.parquet: is no file of this output; remove it"):
        read_whole_run(url)
