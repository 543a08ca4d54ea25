"""The HTTP API: the endpoints of all dialects over the models that are served."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from importlib.metadata import version
from itertools import islice
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException

from serve.config import ServeConfig
from serve.dialect import Dialect, Endpoint, ReadingEndpoint, ResponseBody
from serve.dialects import native
from serve.front import Front, Observer, problem_response
from serve.json_request import JsonRoute
from serve.keys import Gate
from serve.openapi import STATE, TIMEOUT, WITHOUT_BODY, correct, errors, tags, union, unparsed
from serve.page import PAGE
from serve.problems import Problem, invalid, listed_names, unrouted
from serve.routes import Routes, ScoringPath
from serve.service import Model, Service

_FIELDS_CHECKED = 100
"""Of a body that has more, those that are not known are left out: each would be a mistake of its own."""
_DESCRIPTION = """Reranking: a query and passages in, relevance scores out.

The same scores in several dialects: """


class Status(ResponseBody):
    status: str
    """`ok` or `not ready`."""
    not_ready: list[str] = Field(default=[])
    """Models of which no replica is loaded."""
    rollout: str = ""
    """Why the config that was deployed last is not, or not everywhere, what serves: Serve's status and its
    message. Empty: it is."""
    keys: str = ""
    """Why the file of API keys is not read as it is now: the keys that it had before hold. Empty: it is."""


def build(
    config: ServeConfig,
    models: Mapping[str, Model],
    observer: Observer,
    rollout: Callable[[], Awaitable[str]],
) -> FastAPI:
    """models: one for each name in the config. rollout: what is wrong with the last one or under way, or
    nothing.

    Raises ConfigError where API keys can't be read.
    """
    gate = Gate(config.api)
    service = Service(config, models, gate)
    routes = Routes(elsewhere=native)
    app = FastAPIOffline(
        title="rayrank",
        description=_DESCRIPTION + ", ".join(map(_paths_of, routes.dialects)) + ".",
        version=version("rayrank"),
        redoc_url=None,
        redirect_slashes=False,
        license_info={"name": "Apache-2.0"},
        openapi_tags=tags(routes.dialects),
    )
    secured = [] if config.api.keys == "none" else [Depends(HTTPBearer(auto_error=False))]
    app.include_router(_dialects(routes, service), dependencies=secured)
    app.include_router(_state(service, gate, rollout))
    correct(app)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    paths = app.openapi()["paths"]
    app.add_middleware(
        Front, config=config.api, gate=gate, observer=observer, dialect_of=routes.dialect_of, paths=paths
    )
    if config.api.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.api.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # SDKs send some of their own
            expose_headers=["*"],
        )
    return app


def _paths_of(dialect: Dialect) -> str:
    """Its name and where it is spoken."""
    return f"{dialect.NAME} ({', '.join(f'`{endpoint.path}`' for endpoint in dialect.ENDPOINTS)})"


def _dialects(routes: Routes, service: Service) -> APIRouter:
    router = APIRouter(route_class=JsonRoute)
    for path in routes.scoring.values():
        _add_scoring(router, path, service)
    for dialect, endpoint in routes.reading.values():
        _add_reading(router, dialect, endpoint, service)
    return router


def _add_scoring(router: APIRouter, path: ScoringPath, service: Service) -> None:
    """One route for all dialects that share the path."""
    endpoints = [spoken.endpoint for spoken in path.shared]
    body_type = unparsed(path.shared)

    # FastAPI reads the type of the body, which is made of what the dialects take.
    async def answer(body: body_type, request: Request) -> Any:  # type: ignore[valid-type]
        dialect, endpoint = path.recognised(request.headers, body)
        request.state.dialect = dialect
        request.state.report.ignored = ignored = _ignored(endpoint.request, body)
        parsed = _parsed(endpoint.request, body, ignored)
        call = endpoint.call(parsed)
        # FastAPI holds the body until the answer. What no field takes shall not wait with it.
        held: Any = body
        if isinstance(held, dict):
            held.clear()
        request.state.body.keep(vars(parsed))
        return endpoint.respond(parsed, await service.answer(request, call))

    names: list[str | Enum] = list(dict.fromkeys(tag for endpoint in endpoints for tag in endpoint.tags))
    router.add_api_route(
        path.path,
        answer,
        methods=["POST"],
        name=endpoints[0].name,
        summary=", ".join(map(str, names)),
        description=_description(*endpoints),
        tags=names,
        response_model=union(endpoint.response for endpoint in endpoints),
        responses=errors(*(spoken.dialect for spoken in path.shared)),
        openapi_extra={
            "parameters": [TIMEOUT, *(extra for endpoint in endpoints for extra in endpoint.parameters)]
        },
    )


def _add_reading(router: APIRouter, dialect: Dialect, endpoint: ReadingEndpoint, service: Service) -> None:
    async def answer() -> Any:
        return await endpoint.read(service)

    router.add_api_route(
        endpoint.path,
        answer,
        methods=["GET"],
        name=endpoint.name,
        summary=", ".join(endpoint.tags),
        description=_description(endpoint),
        tags=list(endpoint.tags),
        response_model=endpoint.response,
        responses=errors(dialect, of=WITHOUT_BODY),
    )


def _description(*endpoints: Endpoint) -> str:
    described = "; ".join(endpoint.description for endpoint in endpoints if endpoint.description)
    return f"{described}." if described else ""


def _ignored(model: type[BaseModel], body: Any) -> str:
    """The names of the fields that are passed over. A dialect that takes none refuses them by itself."""
    if not isinstance(body, dict) or model.model_config.get("extra") == "forbid":
        return ""
    return listed_names(name for name in body if name not in model.model_fields)


def _parsed(model: type[BaseModel], body: Any, ignored: str) -> Any:
    """Raises Problem."""
    if isinstance(body, dict) and len(body) > _FIELDS_CHECKED:
        known = {name: value for name, value in body.items() if name in model.model_fields}
        body = dict(islice(body.items(), _FIELDS_CHECKED)) | known
    try:
        return model.model_validate(body, from_attributes=True)
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_context=False, include_input=False)
        raise invalid(mistakes, ignored) from error


def _state(service: Service, gate: Gate, rollout: Callable[[], Awaitable[str]]) -> APIRouter:
    """What is told to everyone."""
    routes = APIRouter()

    @routes.get("/health", tags=[STATE])
    async def health() -> Status:
        """The process lives."""
        return Status(status="ok")

    @routes.get("/ready", responses={503: {"model": Status}}, tags=[STATE])
    async def ready(response: Response) -> Status:
        """Every model has a replica that is loaded and scores. Models that scale to zero count as ready.

        A rollout that failed leaves the version before at work, which is ready; `rollout` tells why. A
        mistake in the file of API keys leaves the keys before at work; `keys` tells it.
        """
        missing, told = await asyncio.gather(service.not_ready(), rollout())
        response.status_code = 503 if missing else 200
        status = "not ready" if missing else "ok"
        return Status(status=status, not_ready=missing, rollout=told, keys=gate.keys_problem())

    @routes.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(PAGE.content, media_type="text/html; charset=utf-8", headers=PAGE.headers)

    return routes


async def _on_validation(request: Request, error: Exception) -> Response:
    """FastAPI's own: for want of a body."""
    assert isinstance(error, RequestValidationError)
    return problem_response(request.scope, invalid(error.errors()))


async def _on_http(request: Request, error: Exception) -> Response:
    """A Problem, or what the routing says: no such path, no such method."""
    assert isinstance(error, HTTPException)
    if isinstance(error, Problem):
        return problem_response(request.scope, error)
    if (problem := unrouted(error, request.state.report.path, request.app.openapi()["paths"])) is not None:
        response = problem_response(request.scope, problem)
        response.headers.update(error.headers or {})
        return response
    return JSONResponse({"detail": error.detail}, error.status_code, headers=error.headers)
