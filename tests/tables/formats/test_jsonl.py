import json
from collections import Counter
from pathlib import Path

import pytest

from pipeline.errors import InputError
from tests.tables.conftest import plan, read_all, write_jsonl

GOOD = {"query_id": "q", "query": "text", "passage_id": "p", "passage": "text"}


def write(path: Path, *lines: object) -> Path:
    target = path / "t.jsonl"
    target.write_bytes(
        b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    )
    return target


def test_lines_that_are_no_rows_are_rejected_in_their_place(tmp_path: Path) -> None:
    other = {**GOOD, "passage_id": "p2"}
    path = write(tmp_path, b"{", GOOD, b"[1]", b'{"query_id": "q\xff"}', b"", other)
    good, bad = read_all(path, "jsonl", shard_pairs=1)
    assert [row["row"] for row in good] == [2, 6]
    assert [(row["row"], row["reason"], row["field"]) for row in bad] == [
        (1, "malformed_row", None),
        (3, "malformed_row", None),
        (4, "invalid_text", None),
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
    field = next(iter(change)) if reason.startswith("invalid") else None
    assert [(row["row"], row["reason"], row["field"]) for row in bad] == [(2, reason, field)]


@pytest.mark.parametrize("name", ["query", "passage_id", "passage"])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_missing_keys_are_nulls_wherever_they_stand(tmp_path: Path, name: str, at: int) -> None:
    """As Spark writes rows: without what is null."""
    table = [{**GOOD, "passage_id": f"p{number}"} for number in range(3)]
    del table[at][name]
    good, bad = read_all(write(tmp_path, *table), "jsonl")
    assert [row["row"] for row in good] == [number + 1 for number in range(3) if number != at]
    assert [(row["row"], row["reason"]) for row in bad] == [(at + 1, f"null_{name}")]


def test_a_column_that_no_row_has_is_told(tmp_path: Path) -> None:
    without = {key: value for key, value in GOOD.items() if key != "passage"}
    for rows in (1, 1000, 1001):
        with pytest.raises(InputError, match="no column 'passage'; it has query_id, query, passage_id"):
            plan(write(tmp_path, *[without] * rows), "jsonl")
    nested = {"query_id": "q", "query": "a", "candidates": [{"passage_id": "p"}]}
    with pytest.raises(InputError, match="in candidates: no column 'passage'; it has passage_id"):
        plan(write(tmp_path, nested, nested), "jsonl")
    bare = {"query_id": "a", "query": "b"}  # tells nothing of what candidates are called
    with pytest.raises(InputError, match="in candidates: no column 'passage'; it has passage_id"):
        plan(write(tmp_path, bare, nested), "jsonl")
    full = {**nested, "candidates": [{"passage_id": "p2"}, {"passage_id": "p3", "passage": "text"}]}
    good, bad = read_all(write(tmp_path, nested, full), "jsonl")
    assert ([row["passage_id"] for row in good], [row["reason"] for row in bad]) == (
        ["p3"],
        ["null_passage", "null_passage"],
    )


def test_rows_of_a_file_may_all_lack_what_others_have(tmp_path: Path) -> None:
    """As Spark sorts a table and cuts it into files: nulls first, and left out."""
    bare = [{"query_id": f"a{number}", "query": "text"} for number in range(1500)]
    item = {"passage_id": "p", "passage": "text"}
    full = {"query_id": "b", "query": "text", "candidates": [item]}
    no_query_id = [{"query": "text", "candidates": [item]}] * 1200
    last = {"query_id": "az", "query": "text", "candidates": [item]}
    (tmp_path / "t").mkdir()
    write_jsonl(tmp_path / "t/part-0.jsonl", bare)
    write_jsonl(tmp_path / "t/part-1.jsonl", [*no_query_id, last])
    write_jsonl(tmp_path / "t/part-2.jsonl", [{**bare[0], "query_id": "b"}, full])
    table = plan(tmp_path / "t", "jsonl", shard_pairs=500)
    assert sum(shard.candidates for shard in table.shards) == 1500 + 1201 + 2
    good, bad = read_all(tmp_path / "t", "jsonl", shard_pairs=500)
    assert [row["query_id"] for row in good] == ["az", "b"]
    assert Counter(row["reason"] for row in bad) == {"null_candidates": 1501, "null_query_id": 1200}


def test_a_kept_column_that_no_row_has_is_told(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    write_jsonl(tmp_path / "t/part-0.jsonl", [GOOD])
    item = {"passage_id": "p", "passage": "text", "score": None}
    nested = {"query_id": "r", "query": "text", "lang": "en", "candidates": [item]}
    write_jsonl(tmp_path / "t/part-1.jsonl", [nested])
    good, bad = read_all(tmp_path / "t", "jsonl", kept={"lang": "lang", "n": "score"})
    assert ([row["kept"] for row in good], bad) == (
        [{"lang": None, "n": None}, {"lang": "en", "n": None}],
        [],
    )
    write_jsonl(
        tmp_path / "t/part-2.jsonl", [{"query_id": "s", "query": "a", "error": "late", "candidates": []}]
    )
    assert len(read_all(tmp_path / "t", "jsonl", kept={"error": "error"})[0]) == 2
    told = "part-0.jsonl: no column 'scores'; it has query_id, .* columns in output.keep_columns$"
    with pytest.raises(InputError, match=told):
        plan(tmp_path / "t", "jsonl", kept={"lang": "lang", "n": "scores"})


@pytest.mark.parametrize("lists", [[None, None], [[], []], [None, []]])
def test_a_table_without_any_candidate_is_refused(tmp_path: Path, lists: list[object]) -> None:
    table = [{"query_id": f"q{at}", "query": "a", "candidates": each} for at, each in enumerate(lists)]
    with pytest.raises(InputError, match="t.jsonl: holds no candidates"):
        plan(write(tmp_path, *table), "jsonl", kept={"n": "n"})


def test_a_file_of_another_table_is_told(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    write_jsonl(tmp_path / "t/part-0.jsonl", [GOOD])
    write_jsonl(tmp_path / "t/queries.jsonl", [{"_id": "q", "text": "text"}])
    with pytest.raises(InputError, match="queries.jsonl: no column 'query_id'; it has _id, text"):
        plan(tmp_path / "t", "jsonl")


def test_a_column_that_no_file_has_is_told_of_the_first(tmp_path: Path) -> None:
    empty = {"query_id": "a", "query": "text", "candidates": []}
    misnamed = {"query_id": "b", "query": "text", "candidates": [{"id": "p", "passage": "text"}]}
    (tmp_path / "t").mkdir()
    write_jsonl(tmp_path / "t/part-0.jsonl", [empty] * 1500)
    write_jsonl(tmp_path / "t/part-1.jsonl", [misnamed])
    write_jsonl(tmp_path / "t/part-2.jsonl", [{**misnamed, "query_id": "c"}])
    with pytest.raises(
        InputError, match="part-1.jsonl, in candidates: no column 'passage_id'; it has id, passage"
    ):
        plan(tmp_path / "t", "jsonl")


@pytest.mark.parametrize("query_id", ["q1", 7, 1.5, True, "\ud800", None])
@pytest.mark.parametrize("candidates", [None, "text", {"passage_id": "p"}])
def test_a_row_without_a_list_is_one_reject_whatever_its_id(
    tmp_path: Path, query_id: object, candidates: object
) -> None:
    item = {"passage_id": "p", "passage": "text"}
    table = [{"query_id": f"q{number}", "query": "a", "candidates": [item]} for number in range(4)]
    odd = {"query_id": query_id, "query": "a", "candidates": candidates}
    good, bad = read_all(write(tmp_path, *table[:2], odd, *table[2:]), "jsonl", shard_pairs=1)
    assert len(good) == 4
    assert [(row["row"], row["reason"], row["field"]) for row in bad] == [(3, "null_candidates", None)]


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


@pytest.mark.parametrize("blank", ["", "\n", "\ufeff", "\ufeff\r\n\r\n"])
def test_a_blank_file_holds_no_rows(tmp_path: Path, blank: str) -> None:
    row = {"query_id": "q", "query": "a", "passage_id": "p", "passage": "b"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    (tmp_path / "b.jsonl").write_text(blank)
    planned = plan(tmp_path, "jsonl")
    assert planned.shards[0].pairs == 1
    assert planned.skipped == {f"{tmp_path}/b.jsonl": "holds no rows" if blank else "empty"}


def test_a_lone_surrogate_is_no_text_wherever_it_stands(tmp_path: Path) -> None:
    names = ("query_id", "query", "passage_id", "passage", "kept")
    table = [dict(zip(names, ("q", "a", f"p{at}", "b", "c"), strict=True)) for at in range(7)]
    for at, name in enumerate(names):
        table[at + 1][name] = "\ud800"
    table[6]["kept"] = {"inside": ["\udc00"]}  # type: ignore[assignment]  # JSON holds any value
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    good, bad = read_all(tmp_path, "jsonl", kept={"k": "kept"})
    assert [(row["passage_id"], row["kept"]) for row in good] == [("p0", {"k": "c"})]
    assert [(row["row"], row["reason"]) for row in bad] == [(at + 1, "invalid_text") for at in range(1, 7)]


def test_a_json_list_of_rows_is_refused_as_a_whole(tmp_path: Path) -> None:
    path = write(tmp_path, b"[", json.dumps(GOOD).encode() + b",", GOOD, b"]")
    with pytest.raises(InputError, match=r"begins with `\[`, as a JSON list of rows does"):
        read_all(path, "jsonl")


@pytest.mark.parametrize("shard_pairs", [1, 2, 100])
@pytest.mark.parametrize("odd", [(0,), (0, 1), (3, 4), (8,), (0, 4, 8)])
def test_ids_of_another_type_than_most_are_rejected_wherever_they_stand(
    tmp_path: Path, odd: tuple[int, ...], shard_pairs: int
) -> None:
    table = [
        {"query_id": number // 3, "query": "q", "passage_id": f"p{number}", "passage": "text"}
        for number in range(9)
    ]
    for at in odd:
        table[at]["query_id"] = f"odd {at}"
    path = write_jsonl(tmp_path / "table", table)
    good, bad = read_all(path, "jsonl", shard_pairs)
    assert [row["passage_id"] for row in good] == [f"p{at}" for at in range(9) if at not in odd]
    assert [(row["reason"], row["row"]) for row in bad] == [("invalid_id", at + 1) for at in odd]
