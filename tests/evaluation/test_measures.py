from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import evaluate as entry
from pipeline.errors import ConfigError, InputError
from pipeline.evaluation.measures import evaluate
from pipeline.ranking import trec_eval_order
from tests.conftest import DATA
from tests.outputs import finish_run

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
    run = pa.table({"query_id": ["q"], "passage_id": ["a"], "rank": pa.array([1], pa.int32())})
    url = finish_run(str(tmp_path / "out"), run, top_k=1)
    # Of equal scores trec_eval takes the larger id: `b` stays, and `a` alone is relevant.
    before = write(tmp_path / "before", "q Q0 a 1 2 x\nq Q0 b 2 2 x\n")
    (comparison,) = evaluate(url, write(tmp_path / "qrels", "q 0 a 1\n"), before, "RR")
    assert comparison.before is not None
    assert (comparison.before.tolist(), comparison.after.tolist()) == ([0.0], [1.0])


@pytest.mark.parametrize(
    ("run", "qrels", "message"),
    [
        ("q1 Q0 d 1 2 x\n", "q1 0 d\n", r"qrels line 1: not `query iteration passage relevance`"),
        ("q1 Q0 d 1 2 x\n", "", "qrels: no judgments in it"),
        ("q1 Q0 d 1 2 x\nq1 d\n", "q1 0 d 1\n", "run line 2: not `query Q0 passage rank score tag`"),
        ("q1 Q0 d 1 2 x\n", "q9 0 d 1\n", "qrels: judges none of the queries of"),
        (
            "q1 Q0 d 1 2 x\nq2 Q0 d 1 2 x\nq1 Q0 d 2 1 x\n",
            "q1 0 d 1\n",
            "run line 3: passage 'd' of query 'q1' stands there a second time, after .*run line 1",
        ),
        ("q1 Q0 d 1 NaN x\n", "q1 0 d 1\n", "run line 1: passage 'd' of query 'q1' has a score of nan"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, run: str, qrels: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(write(tmp_path / "run", run), write(tmp_path / "qrels", qrels), None, "AP")


def test_queries_that_a_run_lacks_count_as_0_and_can_be_left_out(tmp_path: Path) -> None:
    qrels = write(tmp_path / "qrels", "".join(f"q{number} 0 good 1\n" for number in range(4)))
    run = write(tmp_path / "run", "q0 Q0 good 1 2 x\nq1 Q0 bad 1 2 x\nq1 Q0 good 2 1 x\nq9 Q0 d 1 2 x\n")
    before = write(tmp_path / "before", "q1 Q0 good 1 2 x\nq2 Q0 good 1 2 x\n")
    (all_judged,) = evaluate(run, qrels, before, "RR")
    assert all_judged.before is not None
    assert (all_judged.after.tolist(), all_judged.before.tolist()) == ([1, 0.5, 0, 0], [0, 1, 1, 0])
    assert (sorted(all_judged.missing), sorted(all_judged.missing_before)) == (["q2", "q3"], ["q0", "q3"])
    (both,) = evaluate(run, qrels, before, "RR", common_queries=True)
    assert both.before is not None
    assert (both.query_ids, both.after.tolist(), both.before.tolist()) == (("q1",), [0.5], [1.0])
    assert (both.judged, both.missing, both.missing_before) == (4, frozenset(), frozenset())
    (alone,) = evaluate(run, qrels, None, "RR", common_queries=True)
    assert (alone.query_ids, alone.after.tolist()) == (("q0", "q1"), [1.0, 0.5])
    other = write(tmp_path / "other", "q3 Q0 good 1 2 x\n")
    with pytest.raises(InputError, match="judges none of the queries that .*run and .*other both have"):
        evaluate(run, qrels, other, "RR", common_queries=True)
    with pytest.raises(InputError, match="judges none of the queries of .*unknown"):
        evaluate(run, qrels, write(tmp_path / "unknown", "q9 Q0 d 1 2 x\n"), "RR")


def test_a_baseline_is_cut_by_scores_as_trec_eval_holds_them(tmp_path: Path) -> None:
    """In float32: these two are equal, and `b` stands before `a`, here and in the measures."""
    before = write(tmp_path / "before", "q Q0 a 1 0.12345678902 x\nq Q0 b 2 0.12345678901 x\n")
    (whole,) = evaluate(before, write(tmp_path / "qrels", "q 0 a 1\n"), None, "RR")
    assert whole.after.tolist() == [0.5]
    assert trec_eval_order(["a", "b"], [0.12345678902, 0.12345678901]).tolist() == [1, 0]
    assert trec_eval_order(["a", "b"], [1e300, float("inf")]).tolist() == [1, 0]


def test_an_infinite_score_ranks_first_or_last(tmp_path: Path) -> None:
    run = write(tmp_path / "run", "q Q0 a 1 1 x\nq Q0 b 2 inf x\nq Q0 c 3 -inf x\n")
    (comparison,) = evaluate(run, write(tmp_path / "qrels", "q 0 c 1\n"), None, "RR")
    assert comparison.after.tolist() == [pytest.approx(1 / 3)]


def test_an_unknown_measure_is_named() -> None:
    with pytest.raises(ConfigError, match="measures 'NDGC@10'"):
        evaluate(RUN, QRELS, None, "NDGC@10")


@pytest.mark.parametrize(("name", "lacks"), [("P", "P needs a cutoff"), ("IPrec", "IPrec needs a recall")])
def test_a_measure_that_lacks_a_parameter_is_named(name: str, lacks: str) -> None:
    with pytest.raises(ConfigError, match=f"measures 'AP {name}': {lacks}: write it as in `R@10`"):
        evaluate(RUN, QRELS, None, f"AP {name}")


def test_the_entry_prints_and_writes_per_query(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    per_query = tmp_path / "per-query.tsv"
    arguments = ["--run", RUN, "--qrels", QRELS, "--baseline", RUN, "--measures", "AP P@10"]
    assert entry.main([*arguments, "--per-query", str(per_query)]) == 0
    assert "AP          0.1785  0.1785  +0.0000  1.0000   0/3/0" in capsys.readouterr().out
    assert per_query.read_text().splitlines()[0] == "query_id\tmeasure\tbefore\tafter\tmissing_in"
    assert len(per_query.read_text().splitlines()) == 1 + 2 * 3


def test_the_entry_tells_of_missing_queries_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    qrels = write(tmp_path / "qrels", "".join(f"问{number} 0 good 1\n" for number in range(3)))
    run = write(tmp_path / "run", "问0 Q0 good 1 2 x\n")
    before = write(tmp_path / "before", "问0 Q0 good 1 2 x\n问1 Q0 good 1 2 x\n")
    per_query = tmp_path / "per-query.tsv"
    arguments = ["--run", run, "--qrels", qrels, "--measures", "RR"]
    assert entry.main([*arguments, "--baseline", before, "--per-query", str(per_query)]) == 0
    assert capsys.readouterr().out.splitlines()[:4] == [
        "3 judged queries",
        "1 of 3 judged queries are in the run; the 2 others count as 0",
        "2 of 3 judged queries are in the baseline; the 1 others count as 0",
        "--common-queries measures the other 1 alone",
    ]
    assert per_query.read_text(encoding="utf-8").splitlines()[1:] == [
        "问0\tRR\t1.000000\t1.000000\t",
        "问1\tRR\t1.000000\t0.000000\trun",
        "问2\tRR\t0.000000\t0.000000\tbaseline run",
    ]
    assert entry.main([*arguments, "--baseline", before, "--common-queries"]) == 0
    assert capsys.readouterr().out.startswith(
        "1 of 3 judged queries: those that the run and baseline both hold\n"
    )
    assert entry.main([*arguments, "--common-queries"]) == 0
    assert capsys.readouterr().out == "1 of 3 judged queries: those that the run holds\nRR         1.0000\n"


def test_the_entry_tells_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["--run", str(tmp_path), "--qrels", QRELS]) == 2
    assert "no finished run" in capsys.readouterr().err
    assert entry.main(["--run", str(tmp_path / "nowhere"), "--qrels", QRELS]) == 2
    assert "nowhere: no such file" in capsys.readouterr().err
