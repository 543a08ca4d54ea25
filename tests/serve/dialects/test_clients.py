"""Clients as their projects publish them, against a real server: extra `clients`."""
# ruff: noqa: PLC0415 - a client is imported where it asks, so that collecting the tests imports none

import gc
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.serve.dialects.conftest import KEY
from tests.serve.dialects.reference import QUERY, scores
from tests.serve.local import LocalServer

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
os.environ["LANGSMITH_TRACING"] = "false"

pytestmark = pytest.mark.filterwarnings(
    "ignore:.langchain-community. is being sunset:DeprecationWarning",  # of itself, where it is imported
    "ignore:unclosed <socket:ResourceWarning",  # most of them never close their connections
)

PASSAGES = ["hi", "The giant panda is a bear.", "Pandas eat bamboo."]
Ranked = list[tuple[str, float]]


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """What the clients leave open is collected here, not in another module's test."""
    yield
    gc.collect()


def best_two() -> Ranked:
    expected = scores(passages=PASSAGES, normalize=True).expected
    best = sorted(expected, key=lambda index: -expected[index])
    return [(PASSAGES[index], expected[index]) for index in best[:2]]


def cohere_v1(url: str, key: str, model: str) -> Ranked:
    import cohere

    made = cohere.Client(api_key=key, base_url=url)
    documents = [{"text": passage} for passage in PASSAGES]
    answer = made.rerank(model=model, query=QUERY, documents=documents, top_n=2, return_documents=True)
    assert answer.meta is not None
    assert answer.meta.api_version is not None
    assert answer.meta.api_version.version == "1"
    return [(result.document.text, result.relevance_score) for result in answer.results if result.document]


def cohere_v2(url: str, key: str, model: str) -> Ranked:
    import cohere

    made = cohere.ClientV2(api_key=key, base_url=url)
    answer = made.rerank(model=model, query=QUERY, documents=PASSAGES, top_n=2, max_tokens_per_doc=100)
    assert answer.meta is not None
    assert answer.meta.billed_units is not None
    assert answer.meta.billed_units.search_units == 1
    return [(PASSAGES[result.index], result.relevance_score) for result in answer.results]


def langchain_cohere(url: str, key: str, model: str) -> Ranked:
    from langchain_cohere import CohereRerank
    from pydantic import SecretStr

    return langchain(CohereRerank(cohere_api_key=SecretStr(key), model=model, base_url=url, top_n=2))


def langchain_jina(url: str, key: str, model: str) -> Ranked:
    import langchain_community.document_compressors.jina_rerank as jina

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jina, "JINA_API_URL", f"{url}/v1/rerank")  # it has no option for it
        return langchain(jina.JinaRerank(jina_api_key=key, model=model, top_n=2))


def langchain(compressor: Any) -> Ranked:
    from langchain_core.documents import Document

    documents = [Document(page_content=passage) for passage in PASSAGES]
    compressed = compressor.compress_documents(documents, QUERY)
    return [(document.page_content, document.metadata["relevance_score"]) for document in compressed]


def llama_index_tei(url: str, key: str, _model: str) -> Ranked:
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    return llama_index(TextEmbeddingInference(base_url=url, auth_token=f"Bearer {key}", top_n=2))


def llama_index_jina(url: str, key: str, model: str) -> Ranked:
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    return llama_index(JinaRerank(base_url=f"{url}/v1", api_key=key, model=model, top_n=2))


def llama_index_cohere(url: str, key: str, model: str) -> Ranked:
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    return llama_index(CohereRerank(base_url=url, api_key=key, model=model, top_n=2))


def llama_index(postprocessor: Any) -> Ranked:
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=passage), score=0.0) for passage in PASSAGES]
    ranked = postprocessor.postprocess_nodes(nodes, query_str=QUERY)
    return [(node.node.text, node.score) for node in ranked]


def haystack_tei(url: str, key: str, _model: str) -> Ranked:
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker

    return haystack(HuggingFaceTEIRanker(url=url, top_k=2, token=Secret.from_token(key)))


def haystack_jina(url: str, key: str, model: str) -> Ranked:
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.jina import JinaRanker

    full = f"{url}/v1/rerank"
    return haystack(JinaRanker(base_url=full, model=model, top_k=2, api_key=Secret.from_token(key)))


def haystack_cohere(url: str, key: str, model: str) -> Ranked:
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.cohere import CohereRanker

    return haystack(CohereRanker(api_base_url=url, model=model, top_k=2, api_key=Secret.from_token(key)))


def haystack(ranker: Any) -> Ranked:
    from haystack import Document

    ranking = ranker.run(query=QUERY, documents=[Document(content=passage) for passage in PASSAGES])
    return [(document.content, document.score) for document in ranking["documents"]]


def tei_client(url: str, key: str, _model: str) -> Ranked:
    from tei_client import HttpClient

    made = HttpClient(url, headers={"Authorization": f"Bearer {key}"})
    return [(rank.text, rank.score) for rank in made.rerank(QUERY, PASSAGES, return_text=True).ranks][:2]


CLIENTS: list[Callable[[str, str, str], Ranked]] = [
    cohere_v1,
    cohere_v2,
    langchain_cohere,
    langchain_jina,
    llama_index_tei,
    llama_index_jina,
    llama_index_cohere,
    haystack_tei,
    haystack_jina,
    haystack_cohere,
    tei_client,
]


@pytest.mark.parametrize("ask", CLIENTS)
def test_a_client_gets_the_best(guarded: LocalServer, ask: Callable[[str, str, str], Ranked]) -> None:
    ranked, expected = ask(guarded.url, KEY, "tiny"), best_two()
    assert [text for text, _ in ranked] == [text for text, _ in expected]
    assert [score for _, score in ranked] == pytest.approx([score for _, score in expected], abs=1e-5)


def test_cohere_raises_its_own_errors(guarded: LocalServer) -> None:
    import cohere

    for ask in (cohere_v1, cohere_v2):
        with pytest.raises(cohere.NotFoundError) as unknown:
            ask(guarded.url, KEY, "nope")
        assert unknown.value.body["message"].startswith("model 'nope' not found")
        with pytest.raises(cohere.UnauthorizedError) as refused:
            ask(guarded.url, "wrong", "tiny")
        assert refused.value.body["message"].startswith("invalid api token: ")


@pytest.mark.parametrize("ask", [langchain_jina, llama_index_jina])
def test_jina_clients_tell_the_detail(guarded: LocalServer, ask: Callable[[str, str, str], Ranked]) -> None:
    with pytest.raises(RuntimeError, match="Model 'nope' not found. Available models: tiny, broken."):
        ask(guarded.url, KEY, "nope")
    with pytest.raises(RuntimeError, match="needs a valid API key"):
        ask(guarded.url, "wrong", "tiny")


def test_haystack_tells_the_body(guarded: LocalServer) -> None:
    with pytest.raises(RuntimeError, match="Model 'nope' not found"):
        haystack_jina(guarded.url, KEY, "nope")
