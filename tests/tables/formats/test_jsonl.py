import json
from pathlib import Path

import pytest

from pipeline.errors import InputError
from tests.tables.conftest import plan, read_all

GOOD = {"query_id": "q", "query": "text", "passage_id": "p", "passage": "text"}


def write(path: Path, *lines: object) -> Path:
    target = path / "t.jsonl"
    target.write_bytes(
        b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    )
    return target


def test_lines_that_are_no_rows_are_rejected_in_their_place(tmp_path: Path) -> None:
    other = {**GOOD, "passage_id": "p2"}
    path = write(tmp_path, b"{", GOOD, b"[1]", b'{"query_id": "q\xff"}', b"", other, b"[" * 100_000)
    good, bad = read_all(path, "jsonl", shard_pairs=1)
    assert [row["row"] for row in good] == [2, 6]
    assert [(row["row"], row["reason"]) for row in bad] == [
        (1, "malformed_row"),
        (3, "malformed_row"),
        (4, "invalid_text"),
        (7, "malformed_row"),
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"passage": "\ud800"}, "invalid_text"),
        ({"passage": 7}, "invalid_text"),
        ({"query": ["a"]}, "invalid_text"),
        ({"query_id": "\ud800"}, "invalid_text"),
        ({"passage_id": 7}, "invalid_id"),
        ({"passage_id": 1.5}, "invalid_id"),
        ({"query_id": True}, "invalid_id"),
        ({"query_id": None}, "null_query_id"),
    ],
)
def test_values_that_dont_fit_are_rejected(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    good, bad = read_all(write(tmp_path, GOOD, {**GOOD, "passage_id": "p2", **change}), "jsonl")
    assert len(good) == 1
    assert [(row["row"], row["reason"]) for row in bad] == [(2, reason)]


def test_missing_keys_are_nulls_but_not_on_the_first_line(tmp_path: Path) -> None:
    without = {key: value for key, value in GOOD.items() if key != "passage"}
    _, bad = read_all(write(tmp_path, GOOD, {**without, "passage_id": "p2"}), "jsonl")
    assert [row["reason"] for row in bad] == ["null_passage"]
    with pytest.raises(InputError, match="no column 'passage'; it has query_id, query, passage_id"):
        plan(write(tmp_path, without, GOOD), "jsonl")


def test_integer_ids_stay_integers(tmp_path: Path) -> None:
    path = write(
        tmp_path, {**GOOD, "query_id": 5, "passage_id": 9}, {**GOOD, "query_id": 5, "passage_id": 2**70}
    )
    good, bad = read_all(path, "jsonl")
    assert (good[0]["query_id"], good[0]["passage_id"]) == (5, 9)
    assert [row["reason"] for row in bad] == ["invalid_id"]


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([1, 2], [1, 2]),
        ([1, 2.5], [1.0, 2.5]),
        ([True, None], [True, None]),
        (["a", 1], ["a", "1"]),
        ([{"a": "é"}, [1]], ['{"a": "é"}', "[1]"]),
        ([None, None], [None, None]),
    ],
)
def test_kept_values_get_one_type(tmp_path: Path, values: list[object], kept: list[object]) -> None:
    lines = [{**GOOD, "passage_id": str(number), "extra": value} for number, value in enumerate(values)]
    good, _ = read_all(write(tmp_path, *lines), "jsonl", shard_pairs=1, kept={"extra": "extra"})
    assert [row["kept"]["extra"] for row in good] == kept


def test_a_file_of_another_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"t.jsonl: holds no line that is a JSON object; is input.format right\?"
    ):
        plan(write(tmp_path, b"query_id,query", b"1,2"), "jsonl")
