from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import evaluate as entry
from pipeline.errors import ConfigError, InputError
from pipeline.evaluation.measures import evaluate
from pipeline.output import finish, write_record
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.run import parquet_bytes
from tests.conftest import DATA
from tests.reporting.reports import summary
from tests.test_output import RECORD

TREC = DATA / "trec_eval"
RUN, QRELS = str(TREC / "results.test"), str(TREC / "qrels.test")
NAMES = {
    "map": "AP",
    "recip_rank": "RR",
    "P_10": "P@10",
    "recall_100": "R@100",
    "ndcg_cut_10": "nDCG@10",
    "ndcg": "nDCG",
    "bpref": "Bpref",
}


@pytest.mark.parametrize(("trec_name", "name"), NAMES.items())
def test_numbers_are_trec_evals(trec_name: str, name: str) -> None:
    published = {
        fields[1]: float(fields[2])
        for line in (TREC / "out.test.aq").read_text().splitlines()
        if (fields := line.split())[0] == trec_name
    }
    (comparison,) = evaluate(RUN, QRELS, None, name)
    assert len(published) == 4
    for query_id, value in zip(comparison.query_ids, comparison.after, strict=True):
        assert round(value, 4) == published[query_id]
    assert round(comparison.after.mean(), 4) == published["all"]


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_before_and_after(tmp_path: Path) -> None:
    qrels = write(tmp_path / "qrels", "q1 0 good 1\nq2 0 good 1\n")
    before = write(tmp_path / "before", "q1 Q0 bad 1 2 x\nq1 Q0 good 2 1 x\nq2 Q0 good 1 2 x\n")
    after = write(tmp_path / "after", "q1 Q0 good 1 2 x\nq1 Q0 bad 2 1 x\nq2 Q0 good 1 2 x\n")
    (comparison,) = evaluate(after, qrels, before, "RR@10")
    assert comparison.before is not None
    assert comparison.before.tolist() == [0.5, 1.0]
    assert comparison.after.tolist() == [1.0, 1.0]
    assert comparison.p_value == 1.0  # of two queries chance explains any change
    (alone,) = evaluate(after, qrels, None, "RR@10")
    assert (alone.before, alone.p_value) == (None, None)


def test_a_baseline_is_cut_as_the_run_was_in_trec_evals_order(tmp_path: Path) -> None:
    output = Directory(str(tmp_path / "out"))
    run = pa.table({"query_id": ["q"], "passage_id": ["a"], "rank": pa.array([1], pa.int32())})
    output.write("run/shard-000000.parquet", parquet_bytes(run, "run"))
    write_record(output, RECORD.model_copy(update={"config": {"output.top_k": 1}}))
    finish(output, summary(), [], complete=True)
    # Of equal scores trec_eval takes the larger id: `b` stays, and `a` alone is relevant.
    before = write(tmp_path / "before", "q Q0 a 1 2 x\nq Q0 b 2 2 x\n")
    (comparison,) = evaluate(output.url, write(tmp_path / "qrels", "q 0 a 1\n"), before, "RR")
    assert comparison.before is not None
    assert (comparison.before.tolist(), comparison.after.tolist()) == ([0.0], [1.0])


@pytest.mark.parametrize(
    ("run", "qrels", "message"),
    [
        ("q1 Q0 d 1 2 x\n", "q1 0 d\n", r"qrels line 1: not `query iteration passage relevance`"),
        ("q1 Q0 d 1 2 x\n", "", "qrels: no judgments in it"),
        ("q1 Q0 d 1 2 x\nq1 d\n", "q1 0 d 1\n", "run line 2: not `query Q0 passage rank score tag`"),
        ("q1 Q0 d 1 2 x\n", "q9 0 d 1\n", "qrels: judges none of the queries of"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, run: str, qrels: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(write(tmp_path / "run", run), write(tmp_path / "qrels", qrels), None, "AP")


def test_an_unknown_measure_is_named() -> None:
    with pytest.raises(ConfigError, match="measures 'NDGC@10'"):
        evaluate(RUN, QRELS, None, "NDGC@10")


def test_the_entry_prints_and_writes_per_query(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    per_query = tmp_path / "per-query.tsv"
    arguments = ["--run", RUN, "--qrels", QRELS, "--baseline", RUN, "--measures", "AP P@10"]
    assert entry.main([*arguments, "--per-query", str(per_query)]) == 0
    assert "AP          0.1785  0.1785  +0.0000  1.0000   0/3/0" in capsys.readouterr().out
    assert per_query.read_text().splitlines()[0] == "query_id\tmeasure\tbefore\tafter"
    assert len(per_query.read_text().splitlines()) == 1 + 2 * 3


def test_the_entry_tells_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["--run", str(tmp_path), "--qrels", QRELS]) == 2
    assert "no finished run" in capsys.readouterr().err
    assert entry.main(["--run", str(tmp_path / "nowhere"), "--qrels", QRELS]) == 2
    assert "nowhere: no such file" in capsys.readouterr().err
