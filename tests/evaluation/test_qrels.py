import gzip
import os
from pathlib import Path

import pytest
from ir_measures import Qrel

from pipeline.errors import InputError
from pipeline.evaluation.qrels import read_qrels


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_trec_qrels(tmp_path: Path) -> None:
    judged = read_qrels(write(tmp_path / "qrels", "q1 0 good 1\nq1 Q0 a\u00a0b -1\n"))
    assert judged == [Qrel("q1", "good", 1, "0"), Qrel("q1", "a\u00a0b", 0, "Q0")]


def test_a_named_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "qrels")
    for path in (f"{tmp_path}/qrels", "/dev/zero"):
        with pytest.raises(InputError, match=f"^{path}: is no file$"):
            read_qrels(path)


def test_any_relevance_below_0_is_one(tmp_path: Path) -> None:
    """TREC's web tracks have -2 for spam, of which pytrec_eval dies; bpref takes -1 for unjudged."""
    text = "q1 0 a -2\nq1 0 b 0\nq2 0 b -2147483648\nq2 0 c -1\nq3 0 a 2\nq3 0 b -1\n"
    judged = read_qrels(write(tmp_path / "qrels", text))
    assert [judgment.relevance for judgment in judged] == [0, 0, 0, 0, 2, 0]


def test_marks_line_ends_and_blank_lines_change_nothing(tmp_path: Path) -> None:
    data = "\ufeffq1 0 d1 1\r\n\r\n\ufeffq2 0 d2 0\r\n \r\n".encode()
    (tmp_path / "qrels.gz").write_bytes(gzip.compress(data))
    assert read_qrels(str(tmp_path / "qrels.gz")) == [Qrel("q1", "d1", 1, "0"), Qrel("q2", "d2", 0, "0")]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_beir_qrels_are_known_by_their_header(tmp_path: Path, mark: str) -> None:
    text = f"{mark}query-id\tcorpus-id\tscore\nq1\tgood\t1\nq2\tan id\t0\n"
    assert read_qrels(write(tmp_path / "test.tsv", text)) == [
        Qrel("q1", "good", 1, "0"),
        Qrel("q2", "an id", 0, "0"),
    ]
    with pytest.raises(InputError, match="test.tsv line 4: not `query, tab, passage, tab, score`"):
        read_qrels(write(tmp_path / "test.tsv", f"{text}q1 0 d 1\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1 0 d\n", "qrels line 1: not `query iteration passage relevance`"),
        ("q1 0 d 1\nq1 0 d one\n", "qrels line 2: not `query iteration passage relevance`"),
        ("", "qrels: no judgments in it"),
        ("q1 0 d 1.0\n", "qrels line 1: not `query iteration passage relevance`, with an integer at the end"),
        (
            "q1 0 d 1\nq2 0 d 1\nq1 1 d 1\n",
            "line 3: judges passage 'd' of query 'q1' a second time, after line 1",
        ),
        ("q1 0 d 1000001\n", "qrels line 1: relevance 1000001 is beyond -2147483648 to 1000000"),
        (
            "query-id\tcorpus-id\tscore\nq\td\t1\nq\td\t0\n",
            "qrels line 3: judges passage 'd' of query 'q' a second time, after line 2",
        ),
        ("q1 d 1\n", "at the end; BEIR's form begins with the line `query-id, tab, corpus-id, tab, score`$"),
        (
            '{"_id": "q1", "text": "a"}\n',
            "at the end; these are JSON lines. .* in qrels/, such as qrels/test.tsv$",
        ),
        (
            "q1 0 d 1\n{}\n",
            "qrels line 2: not `query iteration passage relevance`, with an integer at the end$",
        ),
        (
            "query-id\tcorpus-id\tscore\nq\td\t1.0\n",
            "qrels line 2: not `query, tab, passage, tab, score`, with an integer at the end$",
        ),
        ("query-id\tcorpus-id\tscore\nq\t\t1\n", "qrels line 2: not `query, tab, passage"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_qrels(write(tmp_path / "qrels", text))
