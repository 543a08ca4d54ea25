"""The HTTP API: routes of all dialects over the models that are served."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, Discriminator, Tag
from starlette.exceptions import HTTPException

from serve.config import ServeConfig
from serve.dialects import cohere, jina, native, tei, vllm
from serve.dialects.dialect import Dialect
from serve.front import Front, Observer, problem_response
from serve.json_request import JsonRoute
from serve.keys import Gate
from serve.openapi import SDK_NAME, TIMEOUT, WITHOUT_BODY, correct, errors
from serve.page import PAGE
from serve.problems import Problem, invalid
from serve.service import Model, ModelList, Service

_DESCRIPTION = """Reranking: a query and passages in, relevance scores out.

The same scores in several dialects: text-embeddings-inference (`/rerank`, `/info`), Jina and vLLM
(`/v1/rerank`, `/score`), Cohere (`/v2/rerank`, and `/v1/rerank` from its SDKs), and its own (`/rank`)."""


class Status(BaseModel):
    status: str
    not_ready: list[str] = []
    """Models of which no replica is loaded."""


def build(
    config: ServeConfig,
    models: Mapping[str, Model],
    observer: Observer,
) -> FastAPI:
    """models: one for each name in the config. Raises ConfigError where API keys can't be read."""
    gate = Gate(config.api)
    service = Service(config, models, gate)
    app = FastAPIOffline(
        title="rayrank",
        description=_DESCRIPTION,
        version=version("rayrank"),
        redoc_url=None,
        license_info={"name": "Apache-2.0"},
    )
    app.state.max_body_bytes = config.api.max_body_bytes
    secured = [] if config.api.keys == "none" else [Depends(HTTPBearer(auto_error=False))]
    app.include_router(_scoring(service), dependencies=secured)
    app.include_router(_models(service), dependencies=secured)
    app.include_router(_state(service))
    correct(app)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    paths = app.openapi()["paths"]
    app.add_middleware(Front, gate=gate, observer=observer, dialect_of=dialect_of, paths=paths)
    if config.api.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.api.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-request-id", "x-request-timeout-seconds"],
        )
    return app


def _scoring(service: Service) -> APIRouter:
    routes = APIRouter(route_class=JsonRoute)
    of_tei_and_vllm = errors(tei.ErrorBody | vllm.ErrorBody, tei, vllm)
    of_jina_and_cohere = errors(jina.ErrorBody | cohere.ErrorBody, jina, cohere)
    of_vllm, timed = errors(vllm.ErrorBody, vllm), {"parameters": [TIMEOUT]}

    @routes.post("/rerank", responses=of_tei_and_vllm, openapi_extra=timed, tags=["TEI", "vLLM"])
    async def rerank(
        body: Annotated[
            Annotated[tei.RerankRequest, Tag("tei")] | Annotated[vllm.RerankRequest, Tag("vllm")],
            Discriminator(_rerank_dialect),
        ],
        request: Request,
    ) -> list[tei.Rank] | vllm.RerankResponse:
        """text-embeddings-inference's for a body with `texts`, vLLM's for one with `documents`."""
        if isinstance(body, tei.RerankRequest):
            return tei.response(body, await service.answer(request, tei.call(body)))
        request.state.dialect = vllm
        return vllm.rerank_response(body, await service.answer(request, vllm.rerank_call(body)))

    @routes.post("/v1/score", responses=of_vllm, openapi_extra=timed, tags=["vLLM"])
    @routes.post("/score", responses=of_vllm, openapi_extra=timed, tags=["vLLM"])
    async def score(body: vllm.ScoreRequest, request: Request) -> vllm.ScoreResponse:
        """Scores of pairs: 1:1, 1:N or N:N, in the order given."""
        return vllm.score_response(body, await service.answer(request, vllm.score_call(body)))

    @routes.post(
        "/v1/rerank",
        responses=of_jina_and_cohere,
        openapi_extra={"parameters": [TIMEOUT, SDK_NAME]},
        tags=["Jina", "vLLM", "Cohere"],
    )
    async def rerank_v1(
        body: jina.RerankRequest, request: Request
    ) -> jina.RerankResponse | cohere.RerankResponse:
        """Jina's and vLLM's; Cohere's v1 for requests of its SDKs (`X-Fern-SDK-Name: cohere`)."""
        if request.state.dialect is cohere:
            return cohere.v1_response(body, await service.answer(request, cohere.v1_call(body)))
        return jina.response(body, await service.answer(request, jina.call(body)))

    @routes.post(
        "/v2/rerank", responses=errors(cohere.ErrorBody, cohere), openapi_extra=timed, tags=["Cohere"]
    )
    async def rerank_v2(body: cohere.RerankRequest, request: Request) -> cohere.RerankResponse:
        return cohere.response(body, await service.answer(request, cohere.call(body)))

    @routes.post("/rank", responses=errors(native.ErrorBody, native), openapi_extra=timed, tags=["rayrank"])
    async def rank(body: native.RankRequest, request: Request) -> native.RankResponse:
        """The server's own: ranks, scores as the offline job gives them, and what was cut."""
        return native.response(body, await service.answer(request, native.call(body)))

    return routes


def _models(service: Service) -> APIRouter:
    routes = APIRouter()

    @routes.get("/info", responses=errors(tei.ErrorBody, tei, of=WITHOUT_BODY), tags=["TEI"])
    async def info() -> tei.Info:
        """The default model, as text-embeddings-inference describes one."""
        return await service.info()

    @routes.get("/v1/models", responses=errors(native.ErrorBody, native, of=WITHOUT_BODY), tags=["vLLM"])
    async def models() -> ModelList:
        """The models by the names that requests give; the first is the default."""
        return service.cards()

    return routes


def _state(service: Service) -> APIRouter:
    """What is told to everyone."""
    routes = APIRouter()

    @routes.get("/health", tags=["state"])
    async def health() -> Status:
        """The process lives."""
        return Status(status="ok")

    @routes.get("/ready", responses={503: {"model": Status}}, tags=["state"])
    async def ready(response: Response) -> Status:
        """Every model has a replica that is loaded and scores. Models that scale to zero count as ready."""
        missing = await service.not_ready()
        response.status_code = 503 if missing else 200
        return Status(status="not ready" if missing else "ok", not_ready=missing)

    @routes.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(PAGE.content, media_type="text/html; charset=utf-8", headers=PAGE.headers)

    return routes


def dialect_of(path: str, headers: list[tuple[bytes, bytes]]) -> Dialect:
    """Before the body is known."""
    if path == "/v1/rerank":
        return cohere if cohere.is_cohere(headers) else jina
    spoken: dict[str, Dialect] = {
        "/rerank": tei,
        "/info": tei,
        "/v2/rerank": cohere,
        "/score": vllm,
        "/v1/score": vllm,
    }
    return spoken.get(path, native)


_RERANK_DIALECTS: dict[str, Dialect] = {"tei": tei, "vllm": vllm}


def _rerank_dialect(body: Any) -> str:
    """A key of `_RERANK_DIALECTS`."""
    with_documents = isinstance(body, dict) and "documents" in body and body.get("texts") is None
    return "vllm" if with_documents else "tei"


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    if request.url.path == "/rerank":
        spoken = _rerank_dialect(error.body)
        request.state.dialect = _RERANK_DIALECTS[spoken]
        errors = [{**found, "loc": [part for part in found["loc"] if part != spoken]} for found in errors]
    return problem_response(request.scope, invalid(errors))


async def _on_http(request: Request, error: Exception) -> Response:
    """A Problem, or what the routing says: no such path, no such method."""
    assert isinstance(error, HTTPException)
    if isinstance(error, Problem):
        return problem_response(request.scope, error)
    return JSONResponse({"detail": error.detail}, error.status_code, headers=error.headers)
