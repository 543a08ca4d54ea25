import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError, OutputError
from pipeline.finetuning import examples
from pipeline.finetuning.config import DataConfig
from pipeline.finetuning.examples import Examples
from pipeline.finetuning.sampling import Row
from pipeline.temporary_folder import spool
from tests.conftest import DATA
from tests.finetuning.rows import ROWS, write
from tests.full_disk import files_up_to

GOOD = {"query": "q", "pos": ["p"], "neg": ["n"]}
BAD: dict[str, tuple[Any, str]] = {
    "a list": ([GOOD], "malformed_row"),
    "no query": ({**GOOD, "query": None}, "null_query"),
    "no pos": ({"query": "q", "neg": ["n"]}, "no_positives"),
    "an empty pos": ({**GOOD, "pos": []}, "no_positives"),
    "pos as a text": ({**GOOD, "pos": "p"}, "no_positives"),
    "an empty neg": ({**GOOD, "neg": []}, "no_negatives"),
    "a null as a passage": ({**GOOD, "neg": ["n", None]}, "null_passage"),
    "no neg": ({"query": "q", "pos": ["p"]}, "no_negatives"),
    "null for neg": ({**GOOD, "neg": None}, "no_negatives"),
    "a number as a passage": ({**GOOD, "neg": ["n", 3]}, "invalid_text"),
    "half a sign": ({**GOOD, "query": "\ud800"}, "invalid_text"),
    "a prompt that is none": ({**GOOD, "prompt": 3}, "invalid_text"),
}
BAD_SCORES: dict[str, dict[str, Any]] = {
    "none": {},
    "of one side": {"pos_scores": [1.0]},
    "too few": {"pos_scores": [], "neg_scores": [0.0]},
    "a text": {"pos_scores": ["1"], "neg_scores": [0.0]},
    "no number": {"pos_scores": [float("nan")], "neg_scores": [0.0]},
    "true": {"pos_scores": [True], "neg_scores": [0.0]},
}


def read(path: Path, *, with_scores: bool = False) -> tuple[list[Row], list[dict[str, Any]]]:
    config = DataConfig(path=str(path))
    with examples.checked(examples.find(config), config, with_scores=with_scores) as found:
        return [found[number] for number in range(len(found))], found.rejects


def test_a_temporary_folder_without_room_for_the_rows_is_told(tmp_path: Path) -> None:
    """As a limit on the size of files shows it, here and in another process."""
    path = write(tmp_path / "rows.jsonl", ROWS)
    config = DataConfig(path=str(path))
    message = f"^the rows to train on can't be kept: the temporary folder {tempfile.gettempdir()} can't"
    with pytest.raises(OutputError, match=message), files_up_to(500):
        read(path)
    with examples.checked(examples.find(config), config, with_scores=True) as sent:
        pieces = [*sent.shipped()]
    with pytest.raises(OutputError, match=message), files_up_to(500), spool(examples.KEPT) as file:
        Examples.received(pieces, file)


def test_another_process_gets_the_rows_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "_PIECE_BYTES", 100)
    config = DataConfig(path=str(write(tmp_path / "rows.jsonl", ROWS)))
    with (
        examples.checked(examples.find(config), config, with_scores=True) as sent,
        tempfile.TemporaryFile() as spool,
    ):
        pieces = [*sent.shipped()]
        received = Examples.received(pieces, spool)
        assert len(pieces) > 2
        assert len(received) == len(ROWS)
        assert [received[number] for number in range(6)] == [sent[number] for number in range(6)]


def test_rows_come_back_by_number(tmp_path: Path) -> None:
    rows, rejects = read(write(tmp_path / "rows.jsonl", ROWS), with_scores=True)
    assert (len(rows), rejects) == (6, [])
    assert rows[4] == Row(
        "what is number 4?",
        ("number 4 is a number", "4 it is"),
        ("a bridge of 4 stones", "the giant panda", "no answer here"),
        (2.0, 1.5),
        (0.5, -1.0, -2.0),
    )


def test_rows_of_flag_embeddings_examples_are_read() -> None:
    rows, rejects = read(DATA / "finetune/prompt_based.jsonl")
    assert (len(rows), rejects) == (2, [])
    assert all(row.pos and row.neg and row.prompt for row in rows)


def test_a_folder_is_read_whole_whatever_its_compression(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps(GOOD).encode()))
    write(tmp_path / "b.jsonl", [{**GOOD, "query": "other"}])
    (tmp_path / "README.md").write_text("no rows")
    assert [row.query for row in read(tmp_path)[0]] == ["q", "other"]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_refused_with_file_line_and_reason(tmp_path: Path, name: str) -> None:
    row, reason = BAD[name]
    path = write(tmp_path / "rows.jsonl", [GOOD, row, GOOD])
    rows, rejects = read(path)
    assert len(rows) == 2
    assert rejects == [{"file": str(path), "row": 2, "reason": reason}]


def test_a_line_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"query": "q", "pos": ["p"], "neg"\n' + json.dumps(GOOD).encode() + b"\n\xff\n")
    rows, rejects = read(path)
    assert (len(rows), [reject["reason"] for reject in rejects]) == (1, ["malformed_row"] * 2)


@pytest.mark.parametrize("name", BAD_SCORES)
def test_scores_are_needed_where_a_loss_needs_them(tmp_path: Path, name: str) -> None:
    row = {**GOOD, **BAD_SCORES[name]}
    good = {**GOOD, "pos_scores": [1], "neg_scores": [0.5]}
    path = write(tmp_path / "rows.jsonl", [row, good])
    rows, rejects = read(path, with_scores=True)
    assert [row.pos_scores for row in rows] == [(1.0,)]
    reason = "no_scores" if None in (row.get("pos_scores"), row.get("neg_scores")) else "invalid_scores"
    assert [reject["reason"] for reject in rejects] == [reason]
    assert len(read(path)[0]) == (2 if reason == "no_scores" else 1)


def test_without_a_good_row_the_job_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{**GOOD, "pos": []}] * 2)
    with pytest.raises(
        InputError, match=r"has no row to train on \(2 no_positives; the first: .*\); a row is"
    ) as told:
        read(path)
    assert f"the first: {path} row 1, no_positives)" in str(told.value)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"\n  "])
def test_a_json_array_is_refused_as_a_whole(tmp_path: Path, indent: int | None, before: bytes) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(before + json.dumps([GOOD, GOOD], indent=indent).encode())
    with pytest.raises(InputError, match=r"rows.json: a JSON array; rows are objects, one a line: jq -c"):
        read(path)
