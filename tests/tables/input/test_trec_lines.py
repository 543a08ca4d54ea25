import pytest

from pipeline.errors import InputError
from pipeline.tables.input.trec_lines import Judgment, RunLine, qrels_line, run_line, run_lines


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"q1 Q0 d1 1 9.5 bm25\n", RunLine("q1", "d1", b"1", 9.5, b"bm25")),
        (b"q1\tQ0\td1\t1\t9.5\r\n", RunLine("q1", "d1", b"1", 9.5, b"")),
        ("q\u00a01 Q0 熊 - -1e3 my tag\n".encode(), RunLine("q\u00a01", "熊", b"-", -1000.0, b"my tag")),
        (b"q1 Q0 d1 1\n", None),
        (b"q1 Q0 d1 1 high bm25\n", None),
        (b"\xff Q0 d1 1 9.5 bm25\n", None),
        (b"q1 Q0 d1 1 9.5 bm25\rq1 Q0 d2 2 8.5 bm25\n", None),
        (b"\n", None),
    ],
)
def test_run_lines(line: bytes, expected: RunLine | None) -> None:
    assert run_line(line) == expected


def test_a_line_of_another_form_is_named() -> None:
    with pytest.raises(InputError, match="run line 8: not `query Q0 passage rank score tag`"):
        list(run_lines([(7, b"q Q0 d 1 2 x"), (8, b"q d")], "run"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"q1 0 d1 2\n", Judgment("q1", "0", "d1", 2)),
        (b"q1 0 d1\n", None),
        (b"q1 0 d1 2 3\n", None),
        (b"q1 0 d1 x\n", None),
    ],
)
def test_qrels_lines(line: bytes, expected: Judgment | None) -> None:
    assert qrels_line(line) == expected
