import re
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.evaluation.comparison import evaluate
from pipeline.evaluation.measures import DEFAULT_MEASURES, cutoff_of, meaning_of, parse_measures
from tests.conftest import DATA

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
    found = evaluate([RUN], QRELS, None, name)
    assert len(published) == 4
    for query_id, value in zip(found.query_ids, found.runs[0].values[name], strict=True):
        assert round(value, 4) == published[query_id]
    assert round(found.runs[0].values[name].mean(), 4) == published["all"]


@pytest.mark.parametrize("names", ["nDCG@10 R@100 AP", "nDCG@10,R@100,AP", " nDCG@10, R@100\tAP,"])
def test_blanks_and_commas_stand_between_measures(names: str) -> None:
    assert [str(measure) for measure in parse_measures(names)] == ["nDCG@10", "R@100", "AP"]
    both = parse_measures("P(rel=2, judged_only=True)@5,AP")
    assert [measure.NAME for measure in both] == ["P", "AP"]
    assert both[0].params == {"cutoff": 5, "rel": 2, "judged_only": True}


def test_an_unknown_measure_is_named() -> None:
    with pytest.raises(ConfigError, match="measures 'NDGC@10'"):
        parse_measures("NDGC@10")
    with pytest.raises(ConfigError, match="measures: none given"):
        parse_measures(" ")


@pytest.mark.parametrize(("name", "lacks"), [("P", "P needs a cutoff"), ("IPrec", "IPrec needs a recall")])
def test_a_measure_that_lacks_a_parameter_is_named(name: str, lacks: str) -> None:
    with pytest.raises(ConfigError, match=f"measures 'AP {name}': {lacks}: write it as in `R@10`"):
        parse_measures(f"AP {name}")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        *(
            (name, "has a cutoff of 0; it is a whole number, 1 to 2147483647")
            for name in ("R@0", "nDCG@0", "Success@0", "RR@0", "Judged@0")
        ),
        ("nDCG@10.5", "has a cutoff of 10.5; it is a whole number, 1 to 2147483647"),
        ("P@True", "has a cutoff of True; it is"),
        ("P(rel=3000000000)@5", "has a rel of 3000000000; it is a whole number, 1 to 2147483647"),
        ("P(rel=0)@5", "has a rel of 0; it is a whole number, 1 to 2147483647"),
        ("IPrec@1.5", "has a recall of 1.5; it is between 0.0 and 1.0"),
        *(
            (f"nDCG(gains={gains})@10", "has gains of .*; they map relevances to gains, as in {1: 3, 2: 7}")
            for gains in ("5", "{'a':1}", "{1:True}", "{1:2.5}", "{1:1000001}")
        ),
        ("IPrec@1", "has a recall of 1; it is between 0.0 and 1.0, with a point"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused(name: str, told: str) -> None:
    """pytrec_eval ends the process at a cutoff of 0."""
    with pytest.raises(ConfigError, match=f"^measures {re.escape(repr(f'AP {name}'))}: .* {told}"):
        parse_measures(f"AP {name}")
    assert parse_measures("IPrec@0.0 IPrec@1.0 P(rel=1)@1 nDCG(gains={1:3,2:7})@10")


def test_measures_of_gdeval_take_any_id(tmp_path: Path) -> None:
    """gdeval.pl knows numbers alone, and takes `a-1` and `b-1` for one query."""
    qrels = tmp_path / "qrels"
    qrels.write_text("q1 0 d 1\na-1 0 d 4\nb-1 0 d 1\n")
    run = tmp_path / "run"
    run.write_text("q1 Q0 d 1 1 x\na-1 Q0 x 1 2 x\na-1 Q0 d 2 1 x\nb-1 Q0 d 1 1 x\nother Q0 d 1 1 x\n")
    found = evaluate([str(run)], str(qrels), None, "ERR@10 RR")
    assert found.query_ids == ("a-1", "b-1", "q1")
    assert found.runs[0].values["ERR@10"].tolist() == [pytest.approx(15 / 16 / 2, abs=1e-4), 0.0625, 0.0625]
    assert found.runs[0].values["RR"].tolist() == [0.5, 1.0, 1.0]
    qrels.write_text("q1 0 d 5\n")
    with pytest.raises(ConfigError, match=r"measures ERR@10: .* gdeval\.pl, .* takes no judgment above 4"):
        evaluate([str(run)], str(qrels), None, "ERR@10")


def test_a_measure_looks_at_the_top_or_at_all() -> None:
    assert [cutoff_of(measure) for measure in parse_measures("nDCG@10 AP RR@5 AP")] == [10, None, 5]


def test_the_default_measures_are_explained() -> None:
    assert all(meaning_of(name) for name in DEFAULT_MEASURES.split())
    assert meaning_of("R@10") == (
        "Recall: the share of the relevant passages that the run has. Of the first 10 passages"
    )
    assert meaning_of("Bpref") == ""
