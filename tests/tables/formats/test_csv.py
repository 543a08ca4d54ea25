from pathlib import Path

import pytest

from pipeline.errors import InputError
from tests.tables.conftest import plan, read_all

HEADER = "query_id,query,passage_id,passage\n"


def write(path: Path, text: str | bytes, name: str = "t.csv") -> Path:
    (path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return path / name


def test_a_row_may_span_lines_and_keeps_its_line_number(tmp_path: Path) -> None:
    text = HEADER + 'q1,"two\nlines",p1,"a ""quoted"", text"\n' + "q1,x,p2,\n" + "q2,x,p1,y\n"
    good, bad = read_all(write(tmp_path, text), "csv", shard_pairs=1)
    assert [(row["row"], row["query"], row["passage"]) for row in good] == [
        (2, "two\nlines", 'a "quoted", text'),
        (5, "x", "y"),
    ]
    assert [(row["row"], row["reason"]) for row in bad] == [(4, "null_passage")]


def test_records_of_another_width_are_rejected(tmp_path: Path) -> None:
    text = HEADER + "q1,x,p1,y\n" + "q1,x,p2\n" + "q1,x,p3,y,z\n" + 'q1,x,p4,"y"z\n' + "q1,x,p5,y\n"
    good, bad = read_all(write(tmp_path, text), "csv")
    assert [row["passage_id"] for row in good] == ["p1", "p5"]
    assert [(row["row"], row["reason"]) for row in bad] == [(number, "malformed_row") for number in (3, 4, 5)]


def test_bytes_that_are_no_text_are_rejected(tmp_path: Path) -> None:
    good, bad = read_all(write(tmp_path, HEADER.encode() + b"q1,x,p1,\xff\n" + b"q1,x,p2,y\n"), "csv")
    assert [row["passage_id"] for row in good] == ["p2"]
    assert [(row["row"], row["reason"]) for row in bad] == [(2, "invalid_text")]


@pytest.mark.parametrize(("start", "end"), [("\ufeff", "\n"), ("", "\r\n"), ("", "\n")])
def test_byte_order_marks_and_line_ends(tmp_path: Path, start: str, end: str) -> None:
    text = start + (HEADER + "q1,x,p1,y\nq2,x,p1,y").replace("\n", end)
    good, bad = read_all(write(tmp_path, text), "csv", shard_pairs=1)
    assert [(row["query_id"], row["passage"]) for row in good] == [("q1", "y"), ("q2", "y")]
    assert bad == []


def test_tabs_part_the_fields_of_a_tsv(tmp_path: Path) -> None:
    text = (HEADER + "q1,x,p1,y\n").replace(",", "\t")
    good, _ = read_all(write(tmp_path, text, "t.tsv"), "csv")
    assert good[0]["passage"] == "y"


def test_a_file_without_a_header_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column 'query_id'; it has q1, x, p1, y"):
        plan(write(tmp_path, "q1,x,p1,y\n"), "csv")


def test_a_stray_quote_costs_its_own_line_only(tmp_path: Path) -> None:
    lines = [f"q1,x,p{number},y\n" for number in range(2, 30)]
    lines[0] = 'q1,x,p2,"oops\n'
    lines[9] = 'q1,x,p11,"quoted, fine"\n'
    lines[15] = 'q1,x,"p17,y\n'
    good, bad = read_all(write(tmp_path, HEADER + "".join(lines)), "csv", shard_pairs=1)
    assert [row["passage_id"] for row in good] == [f"p{n}" for n in range(2, 30) if n not in (2, 17)]
    assert [(row["row"], row["reason"]) for row in bad] == [(2, "malformed_row"), (17, "malformed_row")]
    assert good[8]["passage"] == "quoted, fine"


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    good, bad = read_all(write(tmp_path, HEADER + "\nq1,x,p1,y\n\n\nq2,x,p1,y\n\n"), "csv", shard_pairs=1)
    assert [(row["row"], row["query_id"]) for row in good] == [(3, "q1"), (6, "q2")]
    assert bad == []


def test_a_tsv_has_no_quotes(tmp_path: Path) -> None:
    texts = {"p1": '"To be, or not to be', "p2": "third", "p3": 'is the question"', "p4": 'a "b"', "p5": '""'}
    lines = [
        "query_id\tquery\tpassage_id\tpassage",
        *(f"1\tq\t{name}\t{text}" for name, text in texts.items()),
    ]
    good, bad = read_all(write(tmp_path, "\n".join(lines) + "\n\t\n \n", "t.tsv"), "csv")
    assert {row["passage_id"]: row["passage"] for row in good} == texts
    assert [(row["row"], row["reason"]) for row in bad] == [(7, "malformed_row")]


def test_a_text_keeps_the_mark_that_it_begins_with(tmp_path: Path) -> None:
    lines = ["passage,query_id,query,passage_id", "\ufeffone,1,q,a", '"\ufefftwo",1,q,b', "\ufeffthree,2,q,a"]
    for name, mark in (("t.csv", ","), ("t.tsv", "\t")):
        text = "\n".join(lines).replace(",", mark).replace('"' if mark == "\t" else "\0", "")
        good, _ = read_all(write(tmp_path, "\ufeff" + text, name), "csv", shard_pairs=1)
        assert [row["passage"] for row in good] == ["\ufeffone", "\ufefftwo", "\ufeffthree"]


@pytest.mark.parametrize("again", [HEADER, "\ufeff" + HEADER, '"passage","query","query_id","passage_id"\n'])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_a_header_in_the_middle_is_refused(tmp_path: Path, again: str, name: str) -> None:
    text = HEADER + "q1,x,p1,y\n" + again + "q2,x,p1,y\n"
    if name == "t.tsv":
        text = text.replace(",", "\t").replace('"', "")
    with pytest.raises(InputError, match=rf"{name} line 3: the column names stand here again"):
        plan(write(tmp_path, text, name), "csv")


def test_a_blank_file_and_a_header_alone_are_no_rows(tmp_path: Path) -> None:
    write(tmp_path, HEADER + "q1,x,p1,y\n", "a.csv")
    for name, text in {
        "b.csv": "",
        "c.csv": "\n",
        "d.csv": "\ufeff",
        "e.csv": "\ufeff\r\n",
        "f.csv": HEADER,
    }.items():
        write(tmp_path, text, name)
    planned = plan(tmp_path, "csv")
    assert planned.shards[0].pairs == 1
    assert [reason for _, reason in sorted(planned.skipped.items())] == ["empty", *["holds no rows"] * 4]
    write(tmp_path, "q2,x,p1,y\n", "f.csv")  # a row of a part without a header
    with pytest.raises(InputError, match=r"f.csv: no column 'query_id'; it has q2, x, p1, y"):
        plan(tmp_path, "csv")
    write(tmp_path, 'query_id,"query"x,passage_id,passage\n', "f.csv")
    with pytest.raises(InputError, match=r"f.csv line 1: the line of column names is no CSV"):
        plan(tmp_path, "csv")


def test_a_quoted_header_behind_a_byte_order_mark(tmp_path: Path) -> None:
    text = '"query_id","query","passage_id","passage"\n"1","q","x","one\n\ufefftwo"\n'
    parts = "\ufeff" + text + "\ufeff" + '"1","q","y","joined"\n'  # as `cat` joins files
    good, bad = read_all(write(tmp_path, parts), "csv", shard_pairs=1)
    assert [(row["row"], row["query_id"], row["passage"]) for row in good] == [
        (2, "1", "one\n\ufefftwo"),
        (4, "1", "joined"),
    ]
    assert bad == []
