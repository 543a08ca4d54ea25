from pathlib import Path

from pipeline.evaluation.judge import read_judge
from tests.evaluation.test_comparison import write


def test_a_run_is_measured_beside_the_inputs_order_at_its_own_depth(tmp_path: Path) -> None:
    judge = read_judge(write(tmp_path / "qrels", "q 0 good 1\np 0 x 1\n"))
    assert judge.queries == {"q", "p"}
    found = judge.measure({"q": ["bad", "good"]}, {"q": ["good"]}, 1)
    assert (found.queries, found.missing_queries) == (2, 1)
    reciprocal_rank = found.measures["RR@10"]
    assert (reciprocal_rank.before, reciprocal_rank.after) == (0, 1 / 2)
    assert (reciprocal_rank.change.better, reciprocal_rank.change.same) == (1, 1)
    assert found.remarks[0] == "the input is cut at 1 passages a query, the top_k of the run"
    assert list(found.lines())[:2] == [
        f"2 queries are judged by {tmp_path}/qrels",
        "1 of them are not in the run and count as 0, before and after",
    ]
