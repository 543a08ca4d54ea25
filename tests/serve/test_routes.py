"""A dialect is one file: what lies in serve/dialects is served, and listed nowhere else."""

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from serve import dialects
from serve.dialects import native
from serve.routes import Routes
from tests.conftest import TINY
from tests.serve.local import serving

SHOUT = '''
"""POST /SHOUT, and POST /rerank of clients that shout."""

from serve.dialect import Answer, Call, ReadingEndpoint, RequestBody, ResponseBody, ScoringEndpoint, Served
from serve.problems import STATUS
from serve.work import Work

NAME = "SHOUT"


class Request(RequestBody):
    QUERY: str
    TEXT: str


class Response(ResponseBody):
    SCORE: float
    """HIGHER IS BETTER."""


class ErrorBody(ResponseBody):
    WRONG: str


class About(ResponseBody):
    MODEL: str


def call(body):
    return Call(None, Work([body.QUERY], [body.TEXT]))


def respond(body, answer):
    return Response(SCORE=float(answer.scores.scores[0]))


async def about(served):
    return About(MODEL=(await served.info(served.default)).family.upper())


def error(problem, request_id):
    return STATUS[problem.kind], {"WRONG": problem.message.upper()}


def endpoint(path, recognises=None):
    return ScoringEndpoint(
        path=path,
        name="shout",
        tags=(NAME,),
        request=Request,
        example={"QUERY": "A", "TEXT": "B"},
        response=Response,
        call=call,
        respond=respond,
        recognises=recognises,
    )


ENDPOINTS = (
    endpoint("/SHOUT"),
    endpoint("/rerank", lambda headers, body: headers.get("x-voice") == "loud"),
    ReadingEndpoint(path="/ABOUT", name="about", tags=(NAME,), response=About, read=about),
)
'''
BODY = {"QUERY": "what is a panda?", "TEXT": "Pandas eat bamboo."}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One more folder of dialects."""
    monkeypatch.setattr(dialects, "__path__", [*dialects.__path__, str(tmp_path)])
    yield tmp_path
    for file in tmp_path.glob("*.py"):
        sys.modules.pop(f"serve.dialects.{file.stem}", None)
        vars(dialects).pop(file.stem, None)


def test_a_new_file_is_served_and_documented(folder: Path) -> None:
    (folder / "shout.py").write_text(SHOUT)
    with (
        serving({"tiny": {"model": TINY}}) as server,
        httpx2.Client(base_url=server.url, timeout=30) as client,
    ):
        tei = client.post("/rerank", json={"query": BODY["QUERY"], "texts": [BODY["TEXT"]]})
        score = pytest.approx(tei.json()[0]["score"], abs=1e-5)
        assert client.post("/SHOUT", json=BODY).json() == {"SCORE": score}
        wrong = client.post("/SHOUT", json={"QUERY": "hm"})
        assert (wrong.status_code, wrong.json()) == (422, {"WRONG": "TEXT: FIELD REQUIRED"})
        assert client.post("/SHOUT", json=None).json() == {
            "WRONG": "UNSUPPORTED MEDIA TYPE: ONLY 'APPLICATION/JSON' IS ALLOWED"
        }
        assert client.get("/ABOUT").json() == {"MODEL": "SEQUENCE_CLASSIFICATION"}

        loud = {"X-Voice": "loud"}
        assert client.post("/rerank", json=BODY, headers=loud).json() == {"SCORE": score}
        wrong = client.post("/rerank", json={"QUERY": "hm"}, headers=loud)
        assert wrong.json() == {"WRONG": "TEXT: FIELD REQUIRED"}
        assert client.post("/rerank", json=BODY).text.startswith("Failed to deserialize")

        document = client.get("/openapi.json").json()
        assert "SHOUT (`/SHOUT`, `/rerank`, `/ABOUT`)" in document["info"]["description"]
        assert document["paths"]["/rerank"]["post"]["tags"] == ["text-embeddings-inference", "SHOUT", "vLLM"]
        score_field = document["components"]["schemas"]["Response"]["properties"]["SCORE"]
        assert score_field["description"] == "HIGHER IS BETTER."


def test_of_two_dialects_on_one_path_one_has_to_recognise_its_requests(folder: Path) -> None:
    (folder / "shout.py").write_text(SHOUT.replace('"/SHOUT"', '"/score"'))
    with pytest.raises(AssertionError, match=r"/score.*\['SHOUT', 'vLLM'\]"):
        Routes(native)


def test_field_docstrings_are_in_the_document(client: httpx2.Client) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert schemas["RankedPassage"]["properties"]["rank"]["description"] == "1-based."
    truncate = schemas["serve__dialects__tei__RerankRequest"]["properties"]["truncate"]
    assert truncate["description"] == "Null: as the model is configured."
