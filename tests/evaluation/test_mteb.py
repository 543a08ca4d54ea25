"""MTEB's tasks with our scorer, on a task made of the sample texts."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from pipeline import evaluate as entry
from pipeline.errors import ConfigError, InputError, ScoringError
from pipeline.evaluation import mteb as ours
from pipeline.scoring import Scorer, ScorerConfig
from tests.conftest import ROOT, TINY

CONFIG = ScorerConfig(model=TINY, device="cpu")
JOB = f"""
input: {{path: nowhere}}
output: {{path: nowhere}}
scorer: {{model: {TINY}}}
actors: {{num_gpus: 0}}
"""
QUERIES = 6


def rows(file: str) -> dict[str, str]:
    lines = (ROOT / "examples" / file).read_text(encoding="utf-8").splitlines()
    return {row["_id"]: row["text"] for row in map(json.loads, lines)}


def sample() -> dict[str, Any]:
    """Of the first queries of examples/ texts, judgments and the passages of BM25's run, as mteb has them."""
    queries = dict(list(rows("queries.jsonl").items())[:QUERIES])
    judged: dict[str, dict[str, int]] = {query_id: {} for query_id in queries}
    ranked: dict[str, list[str]] = {query_id: [] for query_id in queries}
    for line in (ROOT / "examples/qrels.txt").read_text().splitlines():
        query_id, _, passage_id, relevance = line.split()
        if query_id in queries:
            judged[query_id][passage_id] = int(relevance)
    for line in (ROOT / "examples/run.bm25.trec").read_text().splitlines():
        query_id, _, passage_id, *_ = line.split()
        if query_id in queries:
            ranked[query_id].append(passage_id)
    passages = rows("passages.jsonl")
    return {"queries": queries, "corpus": passages, "relevant_docs": judged, "top_ranked": ranked}


@pytest.fixture(scope="module")
def library() -> Any:
    import mteb  # noqa: PLC0415  (it takes five seconds)

    return mteb


@pytest.fixture
def task(library: Any) -> Any:
    """A reranking task that needs no hub."""

    def load_data(self: Any) -> None:
        for name, value in sample().items():
            setattr(self, name, {"test": value})
        self.data_loaded = True

    metadata = library.abstasks.task_metadata.TaskMetadata(
        name="Sample",
        description="The sample texts",
        type="Reranking",
        category="t2t",
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="map_at_1000",
        dataset={"path": "examples", "revision": "1"},
    )
    bases = (library.abstasks.AbsTaskRetrieval,)
    return type("Sample", bases, {"metadata": metadata, "load_data": load_data})()


def batches(texts: list[str], size: int = 3) -> Iterator[dict[str, list[str]]]:
    return ({"text": texts[start : start + size]} for start in range(0, len(texts), size))


def predict(config: ScorerConfig, pairs: list[tuple[str, str]], task: Any) -> "np.ndarray[Any, Any]":
    queries, passages = map(list, zip(*pairs, strict=True))
    reranker = ours.Reranker(Scorer(config))
    return reranker.predict(
        batches(queries), batches(passages), task_metadata=task.metadata, hf_split="test", hf_subset="default"
    )


class Recorded:
    """A model whose scores are kept."""

    def __init__(self, model: Any) -> None:
        self.model, self.mteb_model_meta = model, model.mteb_model_meta

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        self.scores = self.model.predict(*args, **kwargs)
        return self.scores


def test_it_measures_as_mteb_does_with_its_own_wrapper(
    library: Any, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = CrossEncoder(TINY, device="cpu", max_length=512, activation_fn=torch.nn.Identity())
    wrapper = Recorded(library.models.CrossEncoderWrapper(peer))
    task.load_data()
    expected = library.evaluate(wrapper, task, cache=None, co2_tracker=False)
    (theirs,) = expected.task_results[0].scores["test"]
    reranker = Recorded(ours.Reranker(Scorer(CONFIG)))
    monkeypatch.setattr(ours, "Reranker", lambda scorer: reranker)
    (found,) = ours.measure(CONFIG, [task])
    assert len(reranker.scores) > 5 * QUERIES
    assert np.ptp(reranker.scores) > 0.1
    np.testing.assert_allclose(reranker.scores, wrapper.scores, atol=1e-5)
    assert (found.task, found.split, found.subset) == ("Sample", "test", "default")
    assert found.main_measure == "map_at_1000"
    assert 0.1 < found.main_score < 0.9
    assert found.main_score == theirs["main_score"] == found.measures["map_at_1000"]
    assert {"ndcg_at_10", "mrr_at_10"} < found.measures.keys()
    assert np.isfinite(list(found.measures.values())).all()
    assert found.measures == pytest.approx({name: theirs[name] for name in found.measures}, abs=1e-4)


def test_predict_gives_raw_scores_in_order(library: Any, task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "_PAIRS", 4)
    pairs = [(query, passage) for query in ("a b", "panda") for passage in ("bamboo", "", "a bear", "tea")]
    expected = Scorer(CONFIG).score(pairs)
    assert np.ptp(expected) > 0.01
    for config in (CONFIG, CONFIG.model_copy(update={"normalize": True})):
        np.testing.assert_allclose(predict(config, pairs, task), expected, atol=1e-6)


def test_a_pair_without_a_score_is_named(library: Any, task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "_PAIRS", 2)
    config = CONFIG.model_copy(update={"truncation": "error", "max_length": 16})
    pairs = [("a", "b"), ("a", "b"), ("a", "b"), ("a", "bamboo " * 50)]
    with pytest.raises(ScoringError, match=r"^Sample, test, default: pair 3: "):
        predict(config, pairs, task)


def test_tasks_that_rerank_no_texts_are_refused(library: Any) -> None:
    assert [task.metadata.name for task in ours.find_tasks(["T2Reranking", "SciDocsRR"])] == [
        "T2Reranking",
        "SciDocsRR",
    ]
    with pytest.raises(ConfigError, match=r"^--mteb CMedQAv1: .*Did you mean: 'CMedQAv1-reranking'"):
        ours.find_tasks(["CMedQAv1"])
    with pytest.raises(ConfigError, match=r"^--mteb T2Retrieval: is a task of type Retrieval \(text\);"):
        ours.find_tasks(["T2Retrieval"])


def test_data_that_cannot_be_had_are_told(library: Any, task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise ConnectionError("Couldn't reach\n the hub")

    monkeypatch.setattr(task, "load_data", away)
    with pytest.raises(InputError, match=r"^Sample: its data can't be loaded: Couldn't reach the hub\. "):
        next(ours.measure(CONFIG, [task]))


def test_a_task_ranks_by_one_layer(library: Any, task: Any) -> None:
    config = CONFIG.model_copy(update={"cutoff_layers": (1, 2)})
    with pytest.raises(ConfigError, match=r"^scorer.cutoff_layers: a task ranks by one score"):
        next(ours.measure(config, [task]))


@pytest.fixture
def job(tmp_path: Path) -> str:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return str(path)


def test_the_command_prints_and_writes(
    library: Any,
    task: Any,
    job: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(library, "get_task", {"Sample": task}.__getitem__)
    file = tmp_path / "numbers.json"
    assert entry.main(["--mteb", "Sample", "--config", job, "--json", str(file)]) == 0
    numbers = json.loads(file.read_text())
    assert numbers["scorer"]["truncation"] == "flag_embedding"
    assert numbers["scorer"]["model"] == TINY
    (of_task,) = numbers["tasks"]
    printed = capsys.readouterr().out.splitlines()[-1]
    assert printed.startswith(f"Sample (test)  map_at_1000 {of_task['main_score']:.4f}  ndcg_at_10 0.")


def test_without_mteb_the_command_tells_how_to_install_it(
    job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    assert entry.main(["--mteb", "T2Reranking", "--config", job]) == 2
    assert capsys.readouterr().err == "error: --mteb needs mteb: pip install 'rayrank[mteb]'\n"


def test_a_cascade_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cascade.yaml"
    path.write_text(JOB.replace("scorer: {", "levels: [{scorer: {").replace("}\nactors", "}}]\nactors"))
    assert entry.main(["--mteb", "T2Reranking", "--config", str(path)]) == 2
    assert "error: levels: MTEB's tasks are scored by one scorer" in capsys.readouterr().err


def test_a_mix_with_the_first_stage_is_refused(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--mteb", "T2Reranking", "--config", job, "--set", "fuse.first_stage=1"]
    assert entry.main(command) == 2
    assert "error: fuse: MTEB's tasks are ranked by the scorer alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--mteb", "T2Reranking"], "the following arguments are required: --config"),
        (
            ["--mteb", "T2Reranking", "--config", "x", "--html", "y"],
            "argument --html: does not go with --mteb",
        ),
        (["--run", "a", "--qrels", "b", "--set", "c=d"], "argument --set: goes with --mteb alone"),
        (["--run", "a"], "the following arguments are required: --qrels"),
    ],
)
def test_arguments_of_runs_and_tasks_do_not_mix(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        entry.main(arguments)
    assert capsys.readouterr().err.endswith(f"error: {told}\n")
