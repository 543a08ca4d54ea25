from pathlib import Path

from pipeline.evaluation.judge import read_judge
from tests.evaluation.test_comparison import write


def test_a_run_is_measured_beside_the_inputs_order_at_its_own_depth(tmp_path: Path) -> None:
    judge = read_judge(write(tmp_path / "qrels", "q 0 good 1\np 0 x 1\n"))
    assert judge.queries == {"q", "p"}
    found = judge.measure({"q": ["bad", "good"], "p": ["x"]}, {"q": ["good"], "p": ["x"]}, {"q", "p"}, 1)
    assert (found.queries, found.measured_queries, found.lost_queries) == (2, 2, 0)
    reciprocal_rank = found.measures["RR@10"]
    assert (reciprocal_rank.before, reciprocal_rank.after) == (1 / 2, 1)
    assert (reciprocal_rank.change.better, reciprocal_rank.change.same) == (1, 1)
    assert found.remarks[0] == "the input is cut at 1 passages a query, the top_k of the run"
    assert next(found.lines()) == f"2 queries are judged by {tmp_path}/qrels"


def test_both_sides_are_of_the_queries_that_the_run_has(tmp_path: Path) -> None:
    judge = read_judge(write(tmp_path / "qrels", "q 0 good 1\nlost 0 x 1\nelsewhere 0 x 1\nnone 0 x 1\n"))
    before = {"q": ["bad", "good"], "lost": ["x"]}
    found = judge.measure(before, {"q": ["good", "bad"]}, {"q", "lost"}, None)
    assert (found.queries, found.measured_queries, found.lost_queries) == (4, 1, 1)
    reciprocal_rank = found.measures["RR@10"]
    assert (reciprocal_rank.before, reciprocal_rank.after) == (1 / 2, 1)
    change = reciprocal_rank.change
    assert (change.better, change.same, change.worse) == (1, 0, 0)
    assert list(found.lines())[:4] == [
        f"1 of the 4 queries that {tmp_path}/qrels judges are in the run; the measures are theirs",
        "1 are in the input, but none of their candidates was scored (see rejects and the shards that were"
        " given up)",
        "2 are not in the input",
        "Over all 4, the others as 0: nDCG@10 0.1577 -> 0.2500, RR@10 0.1250 -> 0.2500, AP 0.1250 -> 0.2500,"
        " R@10 0.2500 -> 0.2500",
    ]


def test_where_no_query_is_left_nothing_is_measured(tmp_path: Path) -> None:
    judge = read_judge(write(tmp_path / "qrels", "q 0 good 1\n"))
    found = judge.measure({}, {}, {"q"}, None)
    assert (found.measured_queries, found.lost_queries, found.measures) == (0, 1, {})
    told = list(found.lines())
    assert told[0].startswith("0 of the 1 queries that ")
    assert len(told) == 2
