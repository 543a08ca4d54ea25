"""docs/coming-from.md: the code runs as it stands, on tiny checkpoints, and the requests are answered."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from pipeline import rerank
from pipeline.errors import ConfigError
from pipeline.scoring import Scorer, ScorerConfig
from tests.conftest import MINILM, ROOT, TINY
from tests.serve.local import LocalServer, serving

TEXT = (ROOT / "docs/coming-from.md").read_text()
CODE: list[str] = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
CURL = re.compile(r"^curl localhost:8000(\S+) .*?-d '(.*?)'$", re.MULTILINE | re.DOTALL)
PAIRS = [("what is panda?", "hi"), ("what is panda?", "The giant panda is a bear.")]


def names_after(code: str, model: str = TINY) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(code.replace("BAAI/bge-reranker-v2-m3", model), names)
    return names


def code_with(call: str) -> str:
    (code,) = [block for block in CODE if call in block]
    return code


def test_flag_embeddings_calls_give_the_scorers_scores() -> None:
    reranker = names_after(code_with("compute_score"))["reranker"]
    raw = Scorer(ScorerConfig(model=TINY)).score(PAIRS)
    assert reranker.compute_score(PAIRS[0]) == pytest.approx([raw[0]], abs=1e-6)
    assert reranker.compute_score(PAIRS) == pytest.approx(raw.tolist(), abs=1e-6)
    sigmoids = 1 / (1 + np.exp(-raw))
    assert reranker.compute_score(PAIRS, normalize=True) == pytest.approx(sigmoids.tolist(), abs=1e-6)


def test_flag_embeddings_layers_are_lists() -> None:
    made = names_after(code_with("compute_score"))["FlagReranker"]
    layerwise = TINY.replace("tiny-bge-reranker", "tiny-bge-reranker-v2-minicpm-layerwise")
    by_layer = made(layerwise, cutoff_layers=(2, 3)).compute_score(PAIRS)
    columns = Scorer(ScorerConfig(model=layerwise, cutoff_layers=(2, 3))).score(PAIRS)
    assert by_layer == [pytest.approx(column.tolist(), abs=1e-6) for column in columns.T]


@pytest.fixture(scope="module")
def copied() -> Any:
    """The class that the page asks users to copy."""
    return names_after(code_with("compute_score"))["FlagReranker"]


def test_flag_embeddings_own_options_are_the_copied_classs(copied: Any) -> None:
    raw = Scorer(ScorerConfig(model=TINY)).score(PAIRS)
    sigmoids = pytest.approx((1 / (1 + np.exp(-raw))).tolist(), abs=1e-6)
    normalizing = copied(TINY, normalize=True, batch_size=128, query_instruction_for_rerank=None)
    assert normalizing.compute_score(PAIRS, batch_size=2) == sigmoids
    assert normalizing.compute_score(PAIRS, normalize=True) == sigmoids
    assert normalizing.compute_score(PAIRS, normalize=False) == pytest.approx(raw.tolist(), abs=1e-6)
    assert copied(TINY, dtype="auto").config.dtype == "auto"
    assert copied(TINY, devices="cpu").config.device == copied(TINY, devices=["cpu"]).config.device == "cpu"
    with pytest.raises(ConfigError, match="devices: there is no such field; here it is device"):
        copied(TINY, devices=["cpu", "cpu"])


def test_the_copied_class_takes_what_has_an_order(copied: Any) -> None:
    reranker = copied(TINY)
    scores = pytest.approx(Scorer(ScorerConfig(model=TINY)).score(PAIRS).tolist(), abs=1e-6)
    assert reranker.compute_score(zip(*zip(*PAIRS, strict=True), strict=True)) == scores
    assert reranker.compute_score(np.array(PAIRS)) == scores
    assert reranker.compute_score([]) == []
    assert json.loads(json.dumps(reranker.compute_score(PAIRS[0]))) == pytest.approx(scores.expected[:1])


def test_options_of_a_call_are_of_that_call(copied: Any) -> None:
    def scores(**options: Any) -> Any:
        return pytest.approx(Scorer(ScorerConfig(model=TINY, **options)).score(PAIRS).tolist(), abs=1e-6)

    reranker = copied(TINY)
    first = reranker.scorer
    assert reranker.compute_score(PAIRS) == scores()
    assert reranker.scorer is first
    short = {"max_length": 8, "query_max_length": 3}
    assert reranker.compute_score(PAIRS, **short) == scores(**short)
    assert scores(**short).expected != scores().expected
    assert reranker.compute_score(PAIRS) == scores()
    layerwise = copied(TINY + "-v2-minicpm-layerwise", cutoff_layers=[2])
    assert [len(layer) for layer in layerwise.compute_score(PAIRS, cutoff_layers=[2, 3])] == [2, 2]


def test_a_list_of_pairs_goes_through_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pairs = names_after(code_with("by_query"))["pairs"]
    (config,) = re.findall(r"^```yaml\n(# pairs.yaml.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    tiny = config.replace("BAAI/bge-reranker-v2-m3", TINY).replace("float16", "float32")
    Path("pairs.yaml").write_text(f"{tiny.replace('num_gpus: 1', 'num_gpus: 0')}executor: here\n")
    assert rerank.main(["--config", "pairs.yaml"]) == 0
    expected = Scorer(ScorerConfig(model=TINY)).score(pairs)
    assert names_after(code_with("number_of_pairs"))["scores"] == pytest.approx(expected.tolist(), abs=1e-6)


def test_flag_models_calls_give_the_embeddings() -> None:
    names = names_after(code_with("encode_queries").replace("BAAI/bge-small-en-v1.5", MINILM))
    (query, bear) = PAIRS[1]
    expected = Scorer(ScorerConfig(model=MINILM)).score([(query, bear)])
    assert names["similarity"].tolist() == [pytest.approx(expected.tolist(), abs=1e-5)]
    assert names["model"].encode(bear).shape == (384,)


def test_the_model_cards_code_gives_our_scores() -> None:
    names = names_after(code_with("AutoModelForSequenceClassification"))
    assert names["ours"] == pytest.approx(names["theirs"].numpy(), abs=1e-4)


def test_sentence_transformers_ranks_as_we_do() -> None:
    names = names_after(code_with("CrossEncoder"))
    (theirs,), (ours,) = names["theirs"], names["ours"]
    assert ours.index == theirs["corpus_id"]
    assert ours.score == pytest.approx(theirs["score"], abs=1e-4)


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with serving({"tiny": {"model": TINY}}) as made:
        yield made


@pytest.mark.parametrize(("path", "body"), CURL.findall(TEXT), ids=lambda value: value[:40])
def test_requests_are_answered(server: LocalServer, path: str, body: str) -> None:
    answer = httpx2.post(f"{server.url}{path}", json=json.loads(body), timeout=30)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    results = told if isinstance(told, list) else told.get("results") or told["data"]
    assert len(results) == json.loads(body).get("top_n", 2)


def test_each_servers_request_is_there() -> None:
    assert [path for path, _ in CURL.findall(TEXT)] == [
        "/rerank",
        "/v2/rerank",
        "/v1/rerank",
        "/score",
        "/rerank",
    ]
