import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.done_marker import mark_done
from pipeline.tables.output.format_version import stamped
from pipeline.tables.output.score_table import (
    PreviousScores,
    distinct_queries,
    hash_pairs,
    write_scores,
)
from pipeline.tables.output.sealed import Stamp
from pipeline.tables.schema import result_schema
from tests.reporting.reports import report

SHARDS = ["shard-000000", "shard-000001"]


def results(scores: list[float], layer_scores: tuple[str, ...] = ()) -> pa.Table:
    schema = result_schema(layer_scores)
    return pa.table(
        [
            pa.array(scores if field.type == pa.float32() else range(len(scores)), field.type)
            for field in schema
        ],
        schema=schema,
    )


@pytest.fixture
def previous(tmp_path: Path) -> Directory:
    """Two shards: queries a and b with passages x and y; query a again, with passage z."""
    output = Directory(str(tmp_path / "previous"))
    for index, (queries, passages, scores) in enumerate([("aab", "xyx", [0.1, 0.2, 0.3]), ("a", "z", [0.4])]):
        hashes = hash_pairs(queries, passages)
        name = f"shard-{index:06d}"
        files = write_scores(output, name, hashes, results(scores))
        mark_done(output, report(index, query_hashes=distinct_queries(hashes), files=files))
    return output


def test_fingerprints_are_of_the_content() -> None:
    hashes = hash_pairs(["é", "éa", "é"], ["ab", "b", "ab"]).to_pylist()
    data = "é".encode()
    expected = hashlib.blake2b((2).to_bytes(8, "little") + data + b"ab", digest_size=16).digest()
    assert hashes[0]["pair"] == hashes[2]["pair"] == expected
    assert hashes[1]["pair"] != expected  # "é" + "ab" is "éa" + "b"
    first_bytes = hashlib.blake2b(data, digest_size=8).digest()
    assert hashes[0]["query"] == int.from_bytes(first_bytes, "little")


def test_known_pairs_are_found_in_all_shards_and_others_are_null(previous: Directory) -> None:
    scores = PreviousScores.of(previous.url, "job", SHARDS)
    assert len(scores.queries) == 3
    found = scores.find(hash_pairs("cabaaa", "xzxzqy"), ())
    expected = [None, 0.4, 0.3, 0.4, None, 0.2]
    assert found["score"].to_pylist() == [None if one is None else np.float32(one) for one in expected]
    assert found["window"].to_pylist() == [None, 0, 2, 0, None, 1]
    assert found.schema == result_schema(())
    assert scores.find(hash_pairs("", ""), ()).num_rows == 0


def test_scores_of_one_level_are_found_by_its_columns(previous: Directory) -> None:
    hashes = hash_pairs("a", "z")
    level = results([0.7]).rename_columns([f"level_1_{name}" for name in results([]).column_names])
    rewrite(
        previous, pa.table([*hashes.columns, *level.columns], [*hashes.column_names, *level.column_names])
    )
    scores = PreviousScores.of(previous.url, "job", ["shard-000001"])
    assert scores.find(hashes, (), "level_1_")["score"].to_pylist() == [np.float32(0.7)]
    unseen = pa.table(
        [*hashes.columns, *(pa.nulls(1, field.type) for field in level.schema)],
        [*hashes.column_names, *level.column_names],
    )
    rewrite(previous, unseen)
    scores = PreviousScores.of(previous.url, "job", ["shard-000001"])
    assert scores.find(hashes, (), "level_1_")["score"].to_pylist() == [None]


@pytest.mark.parametrize("file", ["scores/shard-000001.parquet", "_manifest/done/shard-000001.json"])
def test_scores_that_are_gone_or_cut_are_named_before_work_begins(previous: Directory, file: str) -> None:
    data = previous.read(file) or b""
    for damaged, told in ((b"", ""), (data[:100], ""), (None, "is missing")):
        previous.remove_file(file) if damaged is None else previous.write(file, damaged)
        with pytest.raises(InputError, match=rf"reuse: .*{file}: {told}.*leave reuse out"):
            PreviousScores.of(previous.url, "job", SHARDS)


def rewrite(previous: Directory, table: pa.Table, *, stamp: bool = True) -> None:
    """The second shard's scores, known to its marker; `stamp`: as a file of this format."""
    file = "scores/shard-000001.parquet"
    pq.write_table(
        table.replace_schema_metadata(stamped(table.schema, "scores").metadata) if stamp else table,
        f"{previous.url}/{file}",
    )
    hashes = hash_pairs("a", "z")
    files = {file: Stamp.of(previous.read(file) or b"")}
    mark_done(previous, report(1, query_hashes=distinct_queries(hashes), files=files))


def test_scores_of_another_format_are_refused_in_words(previous: Directory) -> None:
    table = pq.read_table(f"{previous.url}/scores/shard-000001.parquet")
    metadata = {b"rayrank": b'{"kind": "scores", "format_version": 99}'}
    for written, told in (
        (table.replace_schema_metadata(metadata), "is of format version 99, which a newer version"),
        (table.replace_schema_metadata(None), "has no format version, so an older version"),
        (table.drop_columns("window"), "has no column 'window'; .*leave reuse out"),
    ):
        rewrite(previous, written, stamp=False)
        with pytest.raises(InputError, match=f"scores/shard-000001.parquet: {told}"):
            PreviousScores.of(previous.url, "job", SHARDS).find(hash_pairs("a", "x"), ())


def test_scores_that_hold_other_bytes_are_never_taken(previous: Directory) -> None:
    file = Path(f"{previous.url}/scores/shard-000001.parquet")
    data = file.read_bytes()
    for at in range(0, len(data), 97):
        file.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(
            InputError, match=r"reuse: .*/scores/shard-000001.parquet: is damaged, it holds other"
        ):
            PreviousScores.of(previous.url, "job", SHARDS).find(hash_pairs("a", "x"), ())
