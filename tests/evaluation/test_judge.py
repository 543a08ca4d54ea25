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
    assert found.remarks[0] == "the input is cut at 1 passages a query, as deep as the run"
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
    told = list(found.lines())
    assert told[:3] == [
        f"1 of the 4 queries that {tmp_path}/qrels judges are in the run; the measures are theirs",
        "1 are in the input, but none of their candidates was scored (see rejects and the shards that were"
        " given up)",
        "2 are not in the input",
    ]
    assert told[-1] == (
        "With the 1 lost queries as 0, over 2: nDCG@10 0.3155 -> 0.5000, RR@10 0.2500 -> 0.5000,"
        " AP 0.2500 -> 0.5000, R@10 0.5000 -> 0.5000"
    )
    # Queries that the input lacks are no part of the job: their number is told, and nothing counts as 0.
    found = judge.measure(before, {"q": ["good", "bad"]}, {"q"}, None)
    told = list(found.lines())
    assert told[1] == "3 are not in the input"
    assert told[-1].startswith("Before is the order of the input")
    assert "as 0" not in "\n".join(told)


def test_where_no_query_is_left_nothing_is_measured(tmp_path: Path) -> None:
    judge = read_judge(write(tmp_path / "qrels", "q 0 good 1\n"))
    found = judge.measure({}, {}, {"q"}, None)
    assert (found.measured_queries, found.lost_queries, found.measures) == (0, 1, {})
    told = list(found.lines())
    assert told[0].startswith("0 of the 1 queries that ")
    assert len(told) == 2
