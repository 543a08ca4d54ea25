"""JSON Schema, as pydantic makes it, in words."""

import json
from collections.abc import Callable
from typing import Any

from docs.site.reference.markdown import code, prose, table

Schema = dict[str, Any]
Link = Callable[[str], str]
"""From a section's name in the schema to a link to it."""

_BOUNDS = {"exclusiveMinimum": "above", "minimum": "from", "exclusiveMaximum": "below", "maximum": "to"}
_PLAIN = {"string": "text", "boolean": "true or false", "null": "null", "object": "mapping"}


def name_of(reference: str) -> str:
    return reference.rpartition("/")[2]


def type_of(schema: Schema, link: Link) -> str:
    """What a value may be."""
    if "$ref" in schema:
        return link(name_of(schema["$ref"]))
    members = schema.get("anyOf") or schema.get("oneOf")
    if members:
        told = dict.fromkeys(type_of(member, link) for member in members)
        return " or ".join(sorted(told, key=lambda member: member == "null"))
    if "enum" in schema or "const" in schema:
        return ", ".join(code(value) for value in schema.get("enum", [schema.get("const")]))
    return _of_one_type(schema, link)


def _of_one_type(schema: Schema, link: Link) -> str:
    kind = schema.get("type")
    if kind in ("integer", "number"):
        bounds = [f"{word} {schema[bound]:.12g}" for bound, word in _BOUNDS.items() if bound in schema]
        return " ".join(["whole number" if kind == "integer" else "number", *bounds])
    if kind == "array":
        return _list_of(schema, link)
    if isinstance(schema.get("additionalProperties"), dict):
        return f"mapping of names to {type_of(schema['additionalProperties'], link)}"
    return "date" if schema.get("format") == "date" else _PLAIN.get(str(kind), "anything")


def _list_of(schema: Schema, link: Link) -> str:
    if "prefixItems" in schema:
        return f"list of {' and '.join(type_of(item, link) for item in schema['prefixItems'])}"
    return f"list of {type_of(schema['items'], link)}"


def _default(name: str, field: Schema, required: list[str]) -> str:
    if name in required:
        return "required"
    if "default" not in field or (isinstance(field["default"], dict) and field["default"]):
        return ""  # a section, whose fields have defaults of their own
    return code(json.dumps(field["default"], ensure_ascii=False))


def meaning(field: Schema, sections: dict[str, Schema]) -> str:
    """The field's description, or that of the one section that it holds."""
    told: str = field.get("description", "")
    if told:
        return told
    below = [field, *field.get("anyOf", [])]
    names = [name_of(member["$ref"]) for member in below if "$ref" in member]
    return str(sections.get(names[0], {}).get("description", "")) if len(names) == 1 else ""


def fields(section: Schema, sections: dict[str, Schema], link: Link) -> str:
    """A table, a line a field."""
    required = section.get("required", [])
    return table(
        ("field", "takes", "default", "meaning"),
        (
            (
                code(name),
                type_of(field, link),
                _default(name, field, required),
                prose(meaning(field, sections)),
            )
            for name, field in section["properties"].items()
        ),
    )
