from pathlib import Path

import pytest
from ir_measures import Qrel

from pipeline.errors import ConfigError
from pipeline.evaluation.comparison import evaluate
from pipeline.evaluation.runs import RunRow
from pipeline.evaluation.systems import System, condensed, judged_share, read_systems
from tests.evaluation.test_comparison import write

JUDGMENTS = [Qrel("q", "good", 1, "0"), Qrel("q", "bad", 0, "0"), Qrel("p", "x", 1, "0")]
ROWS = [RunRow("q", passage, 1.0) for passage in ("x", "good", "y", "bad", "z")]


def test_a_condensed_list_keeps_the_judged_passages_in_their_order() -> None:
    """What another query's judgments name is unjudged here."""
    kept = condensed(System("run", {"q": ROWS, "nobody": ROWS}, None), JUDGMENTS)
    assert kept.ranking == {"q": [ROWS[1], ROWS[3]], "nobody": []}


def test_the_judged_share_is_the_mean_over_judged_queries_that_the_run_holds() -> None:
    """Of `q` 1/2, 2/4 and 2/5; of `p` all of its one; `nobody` is not judged."""
    system = System("run", {"q": ROWS, "nobody": ROWS, "p": [RunRow("p", "x", 1.0)]}, None)
    shares = [judged_share(system, JUDGMENTS, depth) for depth in (2, 4, None)]
    assert shares == [pytest.approx((share + 1) / 2) for share in (1 / 2, 2 / 4, 2 / 5)]


def test_only_what_is_deeper_is_cut() -> None:
    system = System("run", {"q": ROWS, "p": ROWS[:1]}, None)
    cut = system.cut(2)
    assert (cut.depth, cut.is_cut, cut.ranking) == (2, True, {"q": ROWS[:2], "p": ROWS[:1]})
    assert system.cut(5) is system


def test_runs_whose_names_look_alike_are_refused() -> None:
    runs = ["s3://user:one@bucket/run", "s3://user:two@bucket/run"]
    with pytest.raises(ConfigError, match=r"--run s3://user:\*\*\*@bucket/run: is given twice"):
        read_systems(runs, None)


def test_a_run_of_which_nothing_is_judged_has_empty_condensed_lists(tmp_path: Path) -> None:
    qrels, run = write(tmp_path / "qrels", "q 0 good 1\n"), write(tmp_path / "run", "q Q0 x 1 1 x\n")
    found = evaluate([run], qrels, None, "AP nDCG@10", judge_coverage=True).runs[0]
    assert found.judged == {10: 0.0, None: 0.0}
    assert all(values.tolist() == [0.0] for values in found.values.values())


def test_coverage_and_condensed_measures_by_hand(tmp_path: Path) -> None:
    """`q1`: unjudged, relevant, unjudged, not relevant. `q2`: unjudged alone. `q3`: not in the run."""
    qrels = write(tmp_path / "qrels", "q1 0 good 1\nq1 0 bad 0\nq2 0 good 1\nq3 0 good 1\n")
    ranked = {"q1": ["x", "good", "y", "bad"], "q2": ["x"]}
    lines = (
        f"{query} Q0 {passage} 1 {-place} x\n"
        for query, passages in ranked.items()
        for place, passage in enumerate(passages)
    )
    run = write(tmp_path / "run", "".join(lines))
    found = evaluate([run], qrels, None, "RR P@2", judge_coverage=True).runs[0]
    assert found.judged == {2: (1 / 2 + 0) / 2, None: (2 / 4 + 0) / 2}
    assert {name: values.tolist() for name, values in found.values.items()} == {
        "RR": [0.5, 0.0, 0.0],
        "P@2": [0.5, 0.0, 0.0],
        "condensed RR": [1.0, 0.0, 0.0],
        "condensed P@2": [0.5, 0.0, 0.0],
    }
    assert evaluate([run], qrels, None, "RR P@2").runs[0].judged == {}


def test_equal_scores_stand_in_one_order_for_every_measure(tmp_path: Path) -> None:
    """The larger id first, as in trec_eval: RR@10 alone is computed by a tool that takes the smaller."""
    qrels = write(tmp_path / "qrels", "q 0 b 1\n")
    run = write(tmp_path / "run", "q Q0 a 1 7 x\nq Q0 b 2 7 x\n")
    found = evaluate([run], qrels, None, "RR RR@10 nDCG@10 P@1").runs[0]
    assert [values.tolist() for values in found.values.values()] == [[1.0]] * 4
