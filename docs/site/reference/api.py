"""The endpoint's OpenAPI document as a page."""

from collections.abc import Iterator
from typing import Any

from docs.site.reference.markdown import anchor, code, page, prose, table
from docs.site.reference.schema import Schema, fields, type_of
from serve.api import build
from serve.config import ServeConfig

_ABOUT = """The endpoint has the same as `/openapi.json`, and a page to try it at `/docs`.
[Serving](../serving.md) tells of dialects and limits, and has
[the status of each mistake in each dialect](../serving.md#what-a-status-means)."""


class _Silent:
    def request_done(self, report: object) -> None:
        """No request is ever made."""


async def _no_rollout() -> str:
    return ""


def document() -> dict[str, Any]:
    api = {"keys": "none"}
    config = ServeConfig.model_validate({"models": {"model": {"scorer": {"model": "model"}}}, "api": api})
    return build(config, {}, _Silent(), _no_rollout).openapi()


def title(name: str) -> str:
    """Of a schema: dialects have schemas of one name, which FastAPI tells apart by their modules."""
    module, _, plain = name.rpartition("__")
    return f"{plain} ({module.rpartition('__')[2]})" if module else plain


def _link(name: str) -> str:
    return f"[{title(name)}](#{anchor(title(name))})"


def _operation(path: str, method: str, operation: Schema) -> Iterator[str]:
    yield f"### {method.upper()} {path}"
    yield (
        f"Spoken by {', '.join(operation['tags'])}."
        if "state" not in operation["tags"]
        else "For everyone, without a key."
    )
    if operation.get("description"):
        yield "\n\n".join(prose(paragraph) for paragraph in operation["description"].split("\n\n"))
    parameters = operation.get("parameters", [])
    if parameters:
        rows = ((code(each["name"]), each["in"], prose(each.get("description", ""))) for each in parameters)
        yield table(("parameter", "in", "meaning"), rows)
    if "requestBody" in operation:
        yield f"Body: {_body(operation['requestBody'])}."
    rows = (
        (status, prose(response["description"]), _body(response))
        for status, response in sorted(operation["responses"].items())
    )
    yield table(("status", "meaning", "body"), rows)


def _body(holder: Schema) -> str:
    kinds = holder.get("content", {}).values()
    return " or ".join(dict.fromkeys(type_of(kind["schema"], _link) for kind in kinds))


def made() -> str:
    told = document()
    schemas = told["components"]["schemas"]
    parts = ["## Paths"]
    for path, methods in sorted(told["paths"].items()):
        for method, operation in methods.items():
            parts += _operation(path, method, operation)
    parts.append("## Bodies")
    for name, schema in sorted(schemas.items(), key=lambda item: title(item[0])):
        about = [prose(schema["description"])] if schema.get("description") else []
        parts.append("\n\n".join([f"### {title(name)}", *about, fields(schema, schemas, _link)]))
    return page("HTTP API", _ABOUT, parts)
