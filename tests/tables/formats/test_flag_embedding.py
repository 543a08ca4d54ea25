import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.errors import InputError
from tests.conftest import DATA
from tests.tables.conftest import plan, read_all

GOOD = {"query": "what?", "pos": ["this"], "neg": ["that", "those"]}
KEPT = {"label": "label", "given": "score", "prompt": "prompt"}


def write(path: Path, *rows: object, name: str = "rows.jsonl") -> Path:
    target = path / name
    target.parent.mkdir(exist_ok=True)
    lines = (row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)
    target.write_bytes(b"".join(line + b"\n" for line in lines))
    return target


def reasons(bad: list[dict[str, Any]]) -> list[tuple[int, str | None, str]]:
    return [(row["row"], row["passage_id"], row["reason"]) for row in bad]


def test_positives_and_negatives_are_the_candidates_of_their_query(tmp_path: Path) -> None:
    scored = GOOD | {"pos_scores": [9], "neg_scores": [1.5, -2], "prompt": "Is it?", "type": "normal"}
    good, bad = read_all(write(tmp_path, GOOD, scored), "flag_embedding", shard_pairs=1, kept=KEPT)
    assert [(row["query_id"], row["passage_id"], row["passage"], row["item"]) for row in good[:3]] == [
        ("rows.jsonl:1", "pos:1", "this", 1),
        ("rows.jsonl:1", "neg:1", "that", 2),
        ("rows.jsonl:1", "neg:2", "those", 3),
    ]
    assert [row["kept"] for row in good[2:5]] == [
        {"label": 0, "given": None, "prompt": None},
        {"label": 1, "given": 9.0, "prompt": "Is it?"},
        {"label": 0, "given": 1.5, "prompt": "Is it?"},
    ]
    assert bad == []


def test_a_kept_column_that_no_row_has_is_told(tmp_path: Path) -> None:
    told = "rows.jsonl: no column 'prompt'; it has query, pos, neg, .* columns in output.keep_columns$"
    with pytest.raises(InputError, match=told):
        plan(write(tmp_path, GOOD, GOOD), "flag_embedding", kept=KEPT)


def test_rows_with_equal_queries_stay_apart(tmp_path: Path) -> None:
    """Wherever they stand: equal rows, next to each other or in two files of one name."""
    for name in ("a/rows.jsonl", "b/rows.jsonl"):
        write(tmp_path, GOOD, GOOD, name=name)
    wanted = [f"{folder}/rows.jsonl:{line}" for folder in "ab" for line in (1, 2)]
    for path in (tmp_path, f"{tmp_path}/*/rows.jsonl"):
        good, bad = read_all(path, "flag_embedding", shard_pairs=4)
        assert [row["query_id"] for row in good[::3]] == wanted
        assert (len(good), bad) == (12, [])


def test_ids_do_not_tell_where_the_table_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    for path in ("rows.jsonl", ".", str(tmp_path), f"file://{tmp_path}/rows.jsonl"):
        good, _ = read_all(path, "flag_embedding")
        assert good[0]["query_id"] == "rows.jsonl:1"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pos": None}, "no_positives"),
        ({"pos": []}, "no_positives"),
        ({"pos": "this"}, "no_positives"),
        ({"neg": []}, "no_negatives"),
        ({"neg": None}, "no_negatives"),
        ({"neg_scores": [1]}, "invalid_scores"),
        ({"neg_scores": [1, None]}, "invalid_scores"),
        ({"neg_scores": [1, float("nan")]}, "invalid_scores"),
        ({"neg_scores": [1, True]}, "invalid_scores"),
        ({"pos_scores": {}}, "invalid_scores"),
        ({"neg": ["that", None]}, "null_passage"),
        ({"pos": ["this", 7]}, "invalid_text"),
        ({"neg": ["that", "\ud800"]}, "invalid_text"),
        ({"query": None}, "null_query"),
        ({"query": 7}, "invalid_text"),
    ],
)
def test_a_row_that_no_training_could_use_is_rejected_whole(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    good, bad = read_all(write(tmp_path, GOOD | change, GOOD), "flag_embedding")
    assert reasons(bad) == [(1, None, reason)]
    assert bad[0]["query_id"] == "rows.jsonl:1"
    assert [row["query_id"] for row in good] == ["rows.jsonl:2"] * 3


def test_a_line_that_is_no_row_is_rejected_and_those_around_it_are_read(tmp_path: Path) -> None:
    good, bad = read_all(write(tmp_path, GOOD, b"{", GOOD), "flag_embedding", shard_pairs=2)
    assert reasons(bad) == [(2, None, "malformed_row")]
    assert [row["query_id"] for row in good] == ["rows.jsonl:1"] * 3 + ["rows.jsonl:3"] * 3


def test_a_file_without_such_rows_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, {"query": "what?", "passage": "this"})
    with pytest.raises(InputError, match=r"rows.jsonl: holds no row .*\(the first one: pos is missing"):
        plan(path, "flag_embedding")


def test_columns_have_fixed_names(tmp_path: Path) -> None:
    message = re.escape("columns: those of format flag_embedding have fixed names")
    with pytest.raises(ValidationError, match=message):
        plan(write(tmp_path, GOOD), "flag_embedding", columns={"query": "question"})


def test_published_rows_are_read_whole() -> None:
    """Two of FlagEmbedding's own example rows, negatives cut to four."""
    good, bad = read_all(DATA / "flag_embedding.jsonl", "flag_embedding", kept=KEPT)
    assert (len(good), bad) == (10, [])
    assert [row["kept"]["label"] for row in good] == [1, 0, 0, 0, 0] * 2
    assert good[0]["kept"]["given"] == 96.6875
    assert good[0]["kept"]["prompt"].startswith("Given a query A and a passage B")
