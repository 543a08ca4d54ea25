import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.evaluation import compare
from pipeline.evaluation.compare import page, passages_shown
from pipeline.evaluation.comparison import Evaluation, evaluate
from pipeline.evaluation.texts import Texts

TRAP = "</script><script>document.title = 'taken'</script><!-- {{ 7 * 7 }} & \u2028 \\ \""


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def trec(path: Path, ranked: dict[str, list[str]]) -> str:
    """A run; the passages of each query, best first, have the scores 9.5, 8.5, ..."""
    lines = (
        f"{query} Q0 {passage} 1 {9.5 - place} x\n"
        for query, passages in ranked.items()
        for place, passage in enumerate(passages)
    )
    return write(path, "".join(lines))


def sample(folder: Path) -> Evaluation:
    """`q1` gets better, `q2` worse, `q3` stays; `new` is not judged."""
    qrels = write(folder / "qrels", "q1 0 good 2\nq1 0 bad 0\nq2 0 good 1\nq3 0 good 1\n")
    first = trec(folder / "first", {"q1": ["bad", "old", "good"], "q2": ["good"], "q3": ["good"]})
    run = trec(folder / "run", {"q1": ["good", "bad", "new"], "q2": ["bad", "good"], "q3": ["good"]})
    return evaluate([run], qrels, first, "RR nDCG@10")


TEXTS = Texts(
    {"q1": TRAP, "q2": "ما هو الباندا"}, {"good": TRAP, "bad": "汉" * 3000, "old": "Pandas", "new": "x" * 900}
)


def data(html: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Head and details, of the script elements as a browser delimits them."""
    head, details = re.findall(
        r'<script type="application/[a-z-]*json" id="[a-z]+">(.*?)</script', html, re.DOTALL
    )
    return json.loads(head), [json.loads(line) for line in details.split("\n")]


def test_the_data_are_those_of_the_evaluation_and_no_text_ends_the_script(tmp_path: Path) -> None:
    head, details = data(page(sample(tmp_path), "qrels", TEXTS))
    assert head["ids"] == ["q1", "q2", "q3"]
    assert head["queries"] == [TRAP, "ما هو الباندا", ""]
    assert [head["systems"][0][-5:], head["systems"][1][-3:]] == ["first", "run"]
    assert head["values"] == [
        [[0.33333333, 1.0, 1.0], [0.5, 1.0, 1.0]],
        [[1.0, 0.5, 1.0], [1.0, 0.63092975, 1.0]],
    ]
    assert [each["relevant"] for each in details] == [1, 1, 1]
    assert details[0]["passages"] == [
        ["bad", f"{'汉' * 2000}…", 0, [[1, "9.5"], [2, "8.5"]]],
        ["old", "Pandas", None, [[2, "8.5"], None]],
        ["good", TRAP, 2, [[3, "7.5"], [1, "9.5"]]],
        ["new", "x" * 900, None, [None, [3, "7.5"]]],
    ]


def test_names_are_as_short_as_they_are_distinct() -> None:
    assert compare.short_names(["/a/out/demo/", "/a/out/first/run.trec"]) == {
        "/a/out/demo/": "out/demo",
        "/a/out/first/run.trec": "first/run.trec",
    }
    assert compare.short_names(["/a/x/y/run", "/b/x/y/run"]) == {
        "/a/x/y/run": "a/x/y/run",
        "/b/x/y/run": "b/x/y/run",
    }
    assert compare.short_names(["run"]) == {"run": "run"}
    assert compare.short_names(["x/", "x"]) == {"x/": "x/", "x": "x"}


def test_a_sentence_says_which_changes_are_more_than_chance(tmp_path: Path) -> None:
    queries = [f"q{number}" for number in range(12)]
    qrels = write(tmp_path / "qrels", "".join(f"{query} 0 good 1\n" for query in queries))
    first = trec(tmp_path / "first", {query: ["bad", "good"] for query in queries})
    run = trec(tmp_path / "run", {query: ["good", "bad"] for query in queries})
    names = {first: "first", run: "run", "same": "same"}
    found = evaluate([run], qrels, first, "RR R@2")
    assert list(compare.conclusions(found, names)) == ["run: better in RR; no difference shown in R@2."]
    found = evaluate([first], qrels, run, "RR")
    assert list(compare.conclusions(found, names)) == ["first: worse in RR."]
    assert list(compare.conclusions(evaluate([run], qrels, None, "RR"), names)) == []


def test_without_texts_ids_are_shown(tmp_path: Path) -> None:
    html = page(sample(tmp_path), "s3://user:pass@bucket/qrels", None)
    assert data(html)[1][2]["passages"] == [["good", None, 1, [[1, "9.5"], [1, "9.5"]]]]
    assert "No texts were given" in html
    assert "pass@" not in html


def test_a_passage_that_is_shown_of_one_run_has_its_rank_in_the_other(tmp_path: Path) -> None:
    passages = [f"p{number:02}" for number in range(12)]
    first, run = trec(tmp_path / "first", {"q": passages}), trec(tmp_path / "run", {"q": passages[::-1]})
    found = evaluate([run], write(tmp_path / "qrels", "q 0 p11 1\n"), first, "RR")
    assert sorted(passages_shown(found)["q"]) == passages
    _, (query,) = data(page(found, "qrels", None))
    assert {each[0]: [place[0] for place in each[3]] for each in query["passages"]}["p11"] == [12, 1]


def test_the_texts_of_many_queries_are_cut_to_what_a_browser_opens_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The three queries show 4, 2 and 1 passages."""
    monkeypatch.setattr(compare, "_ALL_TEXT_CHARS", 7 * 300)
    html = page(sample(tmp_path), "qrels", TEXTS)
    assert data(html)[1][0]["passages"][3][1] == f"{'x' * 300}…"
    assert "Texts are cut at 300 characters." in html


def test_what_stands_beside_each_other_has_a_fitting_name(tmp_path: Path) -> None:
    """A run is after its baseline; of several runs none is."""
    one = sample(tmp_path)
    several = evaluate(
        [str(tmp_path / "run"), str(tmp_path / "first")],
        str(tmp_path / "qrels"),
        str(tmp_path / "first"),
        "RR",
    )
    for found, roles in ((one, ["Before", "After"]), (several, ["Baseline", "Run"])):
        html = page(found, "qrels", TEXTS)
        head, _ = data(html)
        assert head["roles"] == roles
        for role in roles:
            assert f'<th scope="col" class="n">{role.lower()}</th>' in html


def test_a_measure_and_what_unjudged_counts_as_are_explained(tmp_path: Path) -> None:
    html = page(sample(tmp_path), "qrels", TEXTS)
    assert 'title="Reciprocal rank: 1 divided by the rank of the first relevant passage">RR</th>' in html
    assert 'best one, which has 1. Of the first 10 passages">nDCG@10</th>' in html
    assert "it counts as not relevant. --judge-coverage tells" in html
