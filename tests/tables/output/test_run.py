from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.run import check_trec_ids, write_shard, write_trec_run
from pipeline.tables.output.sealed import Stamp
from pipeline.tables.schema import rejects_schema

KEPT = pa.struct([("url", pa.string())])
NONE_REJECTED = rejects_schema(pa.string(), pa.string()).empty_table()


def ranked(score: float = 0.1) -> pa.Table:
    return pa.table(
        {
            "query_id": ["q", "q"],
            "passage_id": ["b", "a"],
            "kept": pa.array([{"url": "x"}, {"url": None}], KEPT),
            "score": pa.array([score, score], pa.float32()),
            "rank": pa.array([1, 2], pa.int32()),
            "query_cut": pa.array([0, 0], pa.int32()),
            "passage_cut": pa.array([7, 0], pa.int32()),
            "window": pa.array([0, 3], pa.int32()),
            "score_8": pa.array([score, score], pa.float32()),
        }
    )


def test_a_shard_holds_the_runs_columns(tmp_path: Path) -> None:
    write_shard(Directory(str(tmp_path)), "s", ranked(), NONE_REJECTED)
    table = pq.read_table(tmp_path / "run/s.parquet")
    assert table.column_names == [
        "query_id", "passage_id", "score", "rank", "query_cut", "passage_cut", "window", "url",
    ]  # fmt: skip
    assert table["url"].to_pylist() == ["x", None]
    assert not (tmp_path / "rejects").exists()


def test_scores_of_several_layers_stand_before_kept_columns(tmp_path: Path) -> None:
    write_shard(Directory(str(tmp_path)), "s", ranked(), NONE_REJECTED, ["score_8"])
    assert pq.read_table(tmp_path / "run/s.parquet").column_names[-3:] == ["window", "score_8", "url"]


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_shard(Directory(str(tmp_path)), name, ranked(), NONE_REJECTED)
    assert (tmp_path / "run/one.parquet").read_bytes() == (tmp_path / "run/two.parquet").read_bytes()


def test_a_flipped_bit_in_a_page_is_seen_by_any_reader_that_looks(tmp_path: Path) -> None:
    """Readers of others that know no marker: pyarrow, Spark and DuckDB verify pages where told to."""
    write_shard(Directory(str(tmp_path)), "s", ranked(), NONE_REJECTED)
    file = tmp_path / "run/s.parquet"
    data = bytearray(file.read_bytes())
    column = pq.read_metadata(file).row_group(0).column(2)
    assert column.path_in_schema == "score"
    first = column.dictionary_page_offset or column.data_page_offset
    data[first + column.total_compressed_size - 1] ^= 1
    file.write_bytes(data)
    with pytest.raises(OSError, match=r"CRC|verification|corrupt"):
        pq.read_table(file, page_checksum_verification=True)


def test_the_trec_run_holds_every_float32_exactly(tmp_path: Path) -> None:
    output = Directory(str(tmp_path))
    files: dict[str, Stamp] = {}
    for name, score in (("s0", 0.1), ("s1", -16777217.0)):
        files |= write_shard(output, name, ranked(score), NONE_REJECTED)
    stamp = write_trec_run(output, files.items())
    assert stamp == Stamp.of((tmp_path / "run.trec").read_bytes())
    lines = (tmp_path / "run.trec").read_text().splitlines()
    assert lines[0] == "q Q0 b 1 0.100000001 rayrank"
    assert lines[2] == "q Q0 b 1 -16777216 rayrank"


PLACE = {"file": ["f"], "row": [3]}


@pytest.mark.parametrize("broken", ["has blank", "tab\there", "", b"\xff"])
def test_ids_that_a_trec_run_cant_hold_are_named(broken: str | bytes) -> None:
    with pytest.raises(
        InputError, match="passage_id .* which a TREC run can't hold; set output.trec_run to false"
    ):
        check_trec_ids(pa.table({"query_id": ["q"], "passage_id": [broken], **PLACE}))
    check_trec_ids(pa.table({"query_id": [7], "passage_id": ["fine\u00a0too"], **PLACE}))


def test_every_file_says_of_what_kind_it_is(tmp_path: Path) -> None:
    rejects = pa.table(
        [["x"] if pa.types.is_string(field.type) else [1] for field in NONE_REJECTED.schema],
        schema=NONE_REJECTED.schema,
    )
    written = write_shard(Directory(str(tmp_path)), "s", ranked(), rejects)
    files = ("run/s.parquet", "rejects/s.parquet")
    assert written == {file: Stamp.of((tmp_path / file).read_bytes()) for file in files}
    for kind in ("run", "rejects"):
        metadata = pq.read_schema(tmp_path / kind / "s.parquet").metadata
        assert metadata[b"rayrank"] == b'{"kind": "%s", "format_version": 2}' % kind.encode()
