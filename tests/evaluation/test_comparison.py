from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import ConfigError, InputError
from pipeline.evaluation.comparison import evaluate
from pipeline.evaluation.significance import holm
from pipeline.ranking import trec_eval_order
from tests.outputs import finish_run


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def job(url: Path, passages: list[str], top_k: int | None) -> str:
    """A finished run of one query, `q`."""
    ranks = pa.array(range(1, len(passages) + 1), pa.int32())
    scores = pa.array([1 / rank for rank in range(1, len(passages) + 1)], pa.float32())
    columns = {"query_id": ["q"] * len(passages), "passage_id": passages, "rank": ranks, "score": scores}
    return finish_run(str(url), pa.table(columns), top_k=top_k)


def test_before_and_after(tmp_path: Path) -> None:
    qrels = write(tmp_path / "qrels", "q1 0 good 1\nq2 0 good 1\n")
    before = write(tmp_path / "before", "q1 Q0 bad 1 2 x\nq1 Q0 good 2 1 x\nq2 Q0 good 1 2 x\n")
    after = write(tmp_path / "after", "q1 Q0 good 1 2 x\nq1 Q0 bad 2 1 x\nq2 Q0 good 1 2 x\n")
    (comparison,) = evaluate([after], qrels, before, "RR@10").comparisons
    assert comparison.before.tolist() == [0.5, 1.0]
    assert comparison.after.tolist() == [1.0, 1.0]
    assert comparison.p_value == 1.0  # of two queries chance explains any change
    assert comparison.interval == (0.0, 0.5)
    alone = evaluate([after], qrels, None, "RR@10")
    assert (alone.baseline, alone.comparisons) == (None, ())


def test_runs_stand_side_by_side_and_are_corrected_together(tmp_path: Path) -> None:
    """Of 8 queries the first run has all right, the second the half of them: p = 2/256 and 16 * 2/256."""
    queries = range(8)
    qrels = write(tmp_path / "qrels", "".join(f"q{query} 0 good 1\n" for query in queries))

    def run(name: str, right: int) -> str:
        lines = (
            f"q{query} Q0 good 1 {3 if query < right else 1} x\nq{query} Q0 bad 1 2 x\n" for query in queries
        )
        return write(tmp_path / name, "".join(lines))

    before, best, half = run("before", 0), run("best", 8), run("half", 4)
    found = evaluate([best, half], qrels, before, "RR@10 P@1")
    assert [(row.run, row.measure) for row in found.comparisons] == [
        (run, measure) for run in (best, half) for measure in ("RR@10", "P@1")
    ]
    assert [row.change.mean() for row in found.comparisons] == [0.5, 1.0, 0.25, 0.5]
    p_values = [row.p_value for row in found.comparisons]
    assert p_values == [2 / 256, 2 / 256, 2 * 16 / 256, 2 * 16 / 256]
    assert (
        [row.p_holm for row in found.comparisons] == holm(p_values) == [4 * 2 / 256] * 2 + [2 * 32 / 256] * 2
    )
    with pytest.raises(ConfigError, match="best: is given twice"):
        evaluate([best, half, best], qrels, before, "RR@10")


def test_a_baseline_is_cut_as_the_run_was_in_trec_evals_order(tmp_path: Path) -> None:
    url = job(tmp_path / "out", ["a"], top_k=1)
    # Of equal scores trec_eval takes the larger id: `b` stays, and `a` alone is relevant.
    before = write(tmp_path / "before", "q Q0 a 1 2 x\nq Q0 b 2 2 x\n")
    found = evaluate([url], write(tmp_path / "qrels", "q 0 a 1\n"), before, "RR")
    (comparison,) = found.comparisons
    assert (comparison.before.tolist(), comparison.after.tolist()) == ([0.0], [1.0])
    assert found.remarks == (f"{before} is cut at 1 passages a query, as deep as {url}",)


def test_all_are_cut_as_the_shallowest_run(tmp_path: Path) -> None:
    short, long = (
        job(tmp_path / "short", ["a", "b"], top_k=2),
        job(tmp_path / "long", ["a", "b", "c"], top_k=5),
    )
    found = evaluate([short, long], write(tmp_path / "qrels", "q 0 c 1\n"), None, "RR nDCG@2")
    assert [run.values["RR"].tolist() for run in found.runs] == [[0.0], [0.0]]
    assert found.remarks[1:] == (f"{long} is cut at 2 passages a query, as deep as {short}",)


def test_a_measure_that_looks_deeper_than_a_run_is_told(tmp_path: Path) -> None:
    qrels = write(tmp_path / "qrels", "q 0 a 1\n")
    run = write(tmp_path / "run", "q Q0 a 1 2 x\nq Q0 b 2 1 x\n")
    assert evaluate([run], qrels, None, "RR nDCG@2").remarks == ()
    assert evaluate([run], qrels, None, "RR nDCG@3 P@2 R@100").remarks == (
        f"{run} has at most 2 passages a query: nDCG@3, R@100 would look deeper",
    )
    job_run, before = job(tmp_path / "out", ["a"], top_k=1), write(tmp_path / "before", "q Q0 a 1 2 x\n")
    assert evaluate([job_run, run], qrels, before, "R@2").remarks == (
        f"{run} is cut at 1 passages a query, as deep as {job_run}",
        f"{before}, {job_run} and {run} have at most 1 passages a query: R@2 would look deeper",
    )


@pytest.mark.parametrize(("run_top_k", "baseline_top_k"), [(None, 2), (2, None), (2, 3)])
def test_a_run_and_its_baseline_are_equally_deep(
    tmp_path: Path, run_top_k: int | None, baseline_top_k: int | None
) -> None:
    """The same order twice: nothing changed, whichever was cut."""
    passages = ["a", "b", "c", "d"]
    run = job(tmp_path / "run", passages[:run_top_k], run_top_k)
    baseline = job(tmp_path / "baseline", passages[:baseline_top_k], baseline_top_k)
    found = evaluate([run], write(tmp_path / "qrels", "q 0 a 1\nq 0 d 1\n"), baseline, "AP R@2")
    assert [(row.before.mean(), row.after.mean()) for row in found.comparisons] == [(0.5, 0.5), (0.5, 0.5)]
    cut, shallow = (baseline, run) if run_top_k == 2 else (run, baseline)
    assert found.remarks == (f"{cut} is cut at 2 passages a query, as deep as {shallow}",)


def test_runs_of_unlike_depth_are_told_with_the_measures_that_see_it(tmp_path: Path) -> None:
    """TREC runs have no top_k to cut at."""
    lines = [f"q Q0 {passage} 1 {-place} x\n" for place, passage in enumerate("abcd")]
    deep, shallow = write(tmp_path / "deep", "".join(lines)), write(tmp_path / "shallow", "".join(lines[:2]))
    found = evaluate([deep], write(tmp_path / "qrels", "q 0 d 1\n"), shallow, "AP nDCG@2 P@3")
    assert found.remarks == (
        f"{shallow} has at most 2 passages a query: AP, P@3 would look deeper; another one has 4",
    )


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
        evaluate([write(tmp_path / "run", run)], write(tmp_path / "qrels", qrels), None, "AP")


def test_queries_that_a_run_lacks_count_as_0_and_can_be_left_out(tmp_path: Path) -> None:
    qrels = write(tmp_path / "qrels", "".join(f"q{number} 0 good 1\n" for number in range(4)))
    run = write(tmp_path / "run", "q0 Q0 good 1 2 x\nq1 Q0 bad 1 2 x\nq1 Q0 good 2 1 x\nq9 Q0 d 1 2 x\n")
    before = write(tmp_path / "before", "q1 Q0 good 1 2 x\nq2 Q0 good 1 2 x\n")
    found = evaluate([run], qrels, before, "RR")
    assert found.baseline is not None
    (all_judged,) = found.comparisons
    assert (all_judged.after.tolist(), all_judged.before.tolist()) == ([1, 0.5, 0, 0], [0, 1, 1, 0])
    assert (sorted(found.runs[0].missing), sorted(found.baseline.missing)) == (["q2", "q3"], ["q0", "q3"])
    found = evaluate([run], qrels, before, "RR", common_queries=True)
    (both,) = found.comparisons
    assert (found.query_ids, both.after.tolist(), both.before.tolist()) == (("q1",), [0.5], [1.0])
    assert (found.judged, found.runs[0].missing, both.interval) == (4, frozenset(), None)
    alone = evaluate([run], qrels, None, "RR", common_queries=True)
    assert (alone.query_ids, alone.runs[0].values["RR"].tolist()) == (("q0", "q1"), [1.0, 0.5])
    other = write(tmp_path / "other", "q3 Q0 good 1 2 x\n")
    with pytest.raises(InputError, match="judges none of the queries that .*other and .*run all have"):
        evaluate([run], qrels, other, "RR", common_queries=True)
    with pytest.raises(InputError, match="judges none of the queries of .*unknown"):
        evaluate([run], qrels, write(tmp_path / "unknown", "q9 Q0 d 1 2 x\n"), "RR")


def test_a_baseline_is_cut_by_scores_as_trec_eval_holds_them(tmp_path: Path) -> None:
    """In float32: these two are equal, and `b` stands before `a`, here and in the measures."""
    before = write(tmp_path / "before", "q Q0 a 1 0.12345678902 x\nq Q0 b 2 0.12345678901 x\n")
    whole = evaluate([before], write(tmp_path / "qrels", "q 0 a 1\n"), None, "RR")
    assert whole.runs[0].values["RR"].tolist() == [0.5]
    assert trec_eval_order(["a", "b"], [0.12345678902, 0.12345678901]).tolist() == [1, 0]
    assert trec_eval_order(["a", "b"], [1e300, float("inf")]).tolist() == [1, 0]


def test_an_infinite_score_ranks_first_or_last(tmp_path: Path) -> None:
    run = write(tmp_path / "run", "q Q0 a 1 1 x\nq Q0 b 2 inf x\nq Q0 c 3 -inf x\n")
    found = evaluate([run], write(tmp_path / "qrels", "q 0 c 1\n"), None, "RR")
    assert found.runs[0].values["RR"].tolist() == [pytest.approx(1 / 3)]
