import pytest

from pipeline.tables.input.trec_lines import Judgment, RunLine, qrels_line, run_line


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"q1 Q0 d1 1 9.5 bm25\n", RunLine("q1", "d1", b"1", 9.5, b"bm25")),
        (b"q1\tQ0\td1\t1\t9.5\r\n", RunLine("q1", "d1", b"1", 9.5, b"")),
        ("q\u00a01 Q0 熊 - -1e3 my-tag\n".encode(), RunLine("q\u00a01", "熊", b"-", -1000.0, b"my-tag")),
        (b"q1 Q0 d1 1 -inf bm25\n", RunLine("q1", "d1", b"1", float("-inf"), b"bm25")),
        (b"q1 Q0 my doc 1 9.5 bm25\n", None),
        (b"q1 Q0 d1 1 1_0 bm25\n", None),
        (b"q1 Q0 d1 1\n", None),
        (b"q1 Q0 d1 1 high bm25\n", None),
        (b"\xff Q0 d1 1 9.5 bm25\n", None),
        (b"q1 Q0 d1 1 9.5 bm25\rq1 Q0 d2 2 8.5 bm25\n", None),
        (b"\n", None),
    ],
)
def test_run_lines(line: bytes, expected: RunLine | None) -> None:
    assert run_line(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"q1 0 d1 2\n", Judgment("q1", "0", "d1", 2)),
        (b"q1 0 d1\n", None),
        (b"q1 0 d1 2 3\n", None),
        (b"q1 0 d1 x\n", None),
        (b"q1 0 d1 1.0\n", None),
        (b"q1 0 d1 1_0\n", None),
        (b"q1 0 d1 -1\n", Judgment("q1", "0", "d1", -1)),
    ],
)
def test_qrels_lines(line: bytes, expected: Judgment | None) -> None:
    assert qrels_line(line) == expected
