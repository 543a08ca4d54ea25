"""The HTTP API: routes of all dialects over the models that are served."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Annotated, Any, Protocol

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, Discriminator, Tag
from starlette.exceptions import HTTPException

from serve.config import ModelConfig, ServeConfig
from serve.deadline import deadline_s
from serve.dialects import cohere, jina, native, tei, vllm
from serve.dialects.dialect import Answer, Call, Dialect
from serve.front import Front, Observer, problem_response
from serve.json_request import JsonRoute
from serve.keys import Gate
from serve.page import PAGE
from serve.problems import Problem, invalid
from serve.work import ModelInfo, Refused, Scores, Work

_DESCRIPTION = """Reranking: a query and passages in, relevance scores out.

The same scores in several dialects: text-embeddings-inference (`/rerank`, `/info`), Jina and vLLM
(`/v1/rerank`, `/score`), Cohere (`/v2/rerank`, and `/v1/rerank` from its SDKs), and its own (`/rank`)."""


class Model(Protocol):
    """A model that is served, wherever its replicas run."""

    async def score(self, work: Work) -> Scores | Refused:
        """Cancelled, the work is dropped."""

    async def info(self) -> ModelInfo: ...

    async def check(self) -> None:
        """Raises where no replica would score."""


class ModelCard(BaseModel):
    id: str
    object: str = "model"
    cutoff_layers: list[int]
    """Empty where the model has one score."""


class ModelList(BaseModel):
    object: str = "list"
    data: list[ModelCard]


class Status(BaseModel):
    status: str
    not_ready: list[str] = []
    """Models of which no replica is loaded."""


class Api:
    """Answers requests of every dialect."""

    def __init__(self, config: ServeConfig, models: Mapping[str, Model], gate: Gate) -> None:
        self._config = config
        self._models = models
        self._gate = gate

    async def answer(self, request: Request, call: Call) -> Answer:
        """Raises Problem."""
        name = self._name_of(call.model)
        pairs = len(call.work.passages)
        if pairs > self._config.api.max_passages:
            limit = self._config.api.max_passages
            raise Problem("too_many", f"batch size {pairs} > maximum allowed batch size {limit}")
        self._check_cutoff(name, call.work.cutoff_layer)
        state = request.state
        state.report.model, state.report.pairs = name, pairs
        state.report.characters = sum(map(len, call.work.queries)) + sum(map(len, call.work.passages))
        if self._config.api.log_texts:
            state.report.texts = {"query": call.work.queries[0], "passages": call.work.passages}
        self._gate.count(state.key, pairs)
        timeout_s = deadline_s(request.headers, self._config.api.timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                outcome = await self._models[name].score(replace(call.work, timeout_s=timeout_s))
        except TimeoutError as error:
            raise Problem("timeout", f"not done within the {timeout_s:.3g} s that it may take") from error
        if isinstance(outcome, Refused):
            raise Problem(outcome.kind, outcome.message, retry_after_s=outcome.retry_after_s)
        state.report.scores = outcome
        return Answer(state.request_id, name, outcome)

    async def info(self) -> tei.Info:
        name = next(iter(self._models))
        api = self._config.api
        found = await self._models[name].info()
        return tei.info(name, found, api.max_passages, version("rayrank"))

    def cards(self) -> ModelList:
        return ModelList(
            data=[
                ModelCard(id=name, cutoff_layers=list(model.scorer.cutoff_layers or ()))
                for name, model in self._config.models.items()
            ]
        )

    async def not_ready(self) -> list[str]:
        """The models that should have a replica and have none that scores."""
        missing = []
        for name, model in self._config.models.items():
            try:
                if model.replicas.min:
                    await self._models[name].check()
            except Exception:  # whatever it is: there is no answer from a replica
                missing.append(name)
        return missing

    def _name_of(self, model: str | None) -> str:
        if model in (None, "", "default"):
            return next(iter(self._models))
        if model not in self._models:
            known = ", ".join(self._models)
            raise Problem("unknown_model", f"Model {model!r} not found. Available models: {known}.", model)
        return str(model)

    def _check_cutoff(self, name: str, layer: int | None) -> None:
        layers = _layers(self._config.models[name])
        if layer is not None and layer not in layers:
            known = (
                f"cutoff layers {', '.join(map(str, layers))}" if layers else "one score, no cutoff layers"
            )
            raise Problem("invalid", f"cutoff_layer: the model {name} is served with {known}", "cutoff_layer")


def build(
    config: ServeConfig,
    models: Mapping[str, Model],
    observer: Observer,
) -> FastAPI:
    """models: one for each name in the config. Raises ConfigError where API keys can't be read."""
    gate = Gate(config.api)
    api = Api(config, models, gate)
    secured = [] if config.api.keys == "none" else [Depends(HTTPBearer(auto_error=False))]
    app = FastAPIOffline(
        title="rayrank",
        description=_DESCRIPTION,
        version=version("rayrank"),
        redoc_url=None,
        dependencies=secured,
        license_info={"name": "Apache-2.0"},
    )
    app.router.route_class = JsonRoute
    app.state.max_body_bytes = config.api.max_body_bytes
    _add_scoring(app, api)
    _add_views(app, api)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_middleware(Front, gate=gate, observer=observer, dialect_of=dialect_of)
    if config.api.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.api.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-request-id", "x-request-timeout-seconds"],
        )
    return app


def _add_scoring(app: FastAPI, api: Api) -> None:
    def errors(body: Any) -> dict[int | str, dict[str, Any]]:
        statuses = (400, 401, 403, 404, 408, 413, 415, 422, 424, 429, 500, 503, 504)
        return {status: {"model": body, "description": "Why there are no scores"} for status in statuses}

    @app.post("/rerank", responses=errors(tei.ErrorBody | vllm.ErrorBody | str), tags=["TEI", "vLLM"])
    async def rerank(
        body: Annotated[
            Annotated[tei.RerankRequest, Tag("tei")] | Annotated[vllm.RerankRequest, Tag("vllm")],
            Discriminator(_rerank_dialect),
        ],
        request: Request,
    ) -> list[tei.Rank] | vllm.RerankResponse:
        """text-embeddings-inference's for a body with `texts`, vLLM's for one with `documents`."""
        if isinstance(body, tei.RerankRequest):
            return tei.response(body, await api.answer(request, tei.call(body)))
        request.state.dialect = vllm
        return vllm.rerank_response(body, await api.answer(request, vllm.rerank_call(body)))

    @app.post("/v1/score", responses=errors(vllm.ErrorBody), tags=["vLLM"])
    @app.post("/score", responses=errors(vllm.ErrorBody), tags=["vLLM"])
    async def score(body: vllm.ScoreRequest, request: Request) -> vllm.ScoreResponse:
        """Scores of pairs: 1:1, 1:N or N:N, in the order given."""
        return vllm.score_response(body, await api.answer(request, vllm.score_call(body)))

    @app.post(
        "/v1/rerank", responses=errors(jina.ErrorBody | cohere.ErrorBody), tags=["Jina", "vLLM", "Cohere"]
    )
    async def rerank_v1(
        body: jina.RerankRequest, request: Request
    ) -> jina.RerankResponse | cohere.RerankResponse:
        """Jina's and vLLM's; Cohere's v1 for requests of its SDKs (`X-Fern-SDK-Name: cohere`)."""
        if request.state.dialect is cohere:
            return cohere.v1_response(body, await api.answer(request, cohere.v1_call(body)))
        return jina.response(body, await api.answer(request, jina.call(body)))

    @app.post("/v2/rerank", responses=errors(cohere.ErrorBody), tags=["Cohere"])
    async def rerank_v2(body: cohere.RerankRequest, request: Request) -> cohere.RerankResponse:
        return cohere.response(body, await api.answer(request, cohere.call(body)))

    @app.post("/rank", responses=errors(native.ErrorBody), tags=["rayrank"])
    async def rank(body: native.RankRequest, request: Request) -> native.RankResponse:
        """The server's own: ranks, scores as the offline job gives them, and what was cut."""
        return native.response(body, await api.answer(request, native.call(body)))


def _add_views(app: FastAPI, api: Api) -> None:
    @app.get("/info", tags=["TEI"])
    async def info() -> tei.Info:
        """The default model, as text-embeddings-inference describes one."""
        return await api.info()

    @app.get("/v1/models", tags=["vLLM"])
    async def models() -> ModelList:
        """The models by the names that requests give; the first is the default."""
        return api.cards()

    @app.get("/health", tags=["state"])
    async def health() -> Status:
        """The process lives."""
        return Status(status="ok")

    @app.get("/ready", responses={503: {"model": Status}}, tags=["state"])
    async def ready(response: Response) -> Status:
        """Every model has a replica that is loaded and scores. Models that scale to zero count as ready."""
        missing = await api.not_ready()
        response.status_code = 503 if missing else 200
        return Status(status="not ready" if missing else "ok", not_ready=missing)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(PAGE.content, media_type="text/html; charset=utf-8", headers=PAGE.headers)


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


def _layers(model: ModelConfig) -> tuple[int, ...]:
    return model.scorer.cutoff_layers or ()
