"""Every field of every config."""

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from docs.site.reference.markdown import anchor, code, page, prose
from docs.site.reference.schema import Schema, fields, name_of
from pipeline.finetuning.config import FinetuneConfig
from pipeline.mining.config import MineConfig
from pipeline.preparation.config import PrepareConfig
from pipeline.reranking.config import RerankConfig
from pipeline.retrieval.config import RetrieveConfig
from serve.config import ServeConfig

ROOTS: dict[str, type[BaseModel]] = {
    "rerank": RerankConfig,
    "prepare": PrepareConfig,
    "retrieve": RetrieveConfig,
    "mine": MineConfig,
    "finetune": FinetuneConfig,
    "serve": ServeConfig,
}
"""What each command's YAML file is; serve's are the `args` of Ray Serve's."""
_ABOUT = """One YAML file is one whole job. `--set a.b=c` overrides a field. A field that is not known is
refused, and so is a value of another type.

Fields of a section stand below it: `scorer: {model: ...}`, or `--set scorer.model=...`. Several commands
share sections; each is told here once. Files to begin with are in [configs/rerank](../../configs/rerank),
[retrieve](../../configs/retrieve), [prepare](../../configs/prepare), [mine](../../configs/mine),
[finetune](../../configs/finetune) and [serve](../../configs/serve)."""


class _Sections:
    """Each section once, under one heading, whichever configs hold it."""

    def __init__(self) -> None:
        self.headings: dict[str, str] = {}
        """By content."""
        self.places = defaultdict[str, dict[str, list[str]]](lambda: defaultdict(list))
        """By heading and command."""

    def heading(self, name: str, section: Schema, command: str) -> str:
        content = json.dumps([name, section], sort_keys=True)
        if content not in self.headings:
            taken = name in self.headings.values()
            self.headings[content] = f"{name} of {command}" if taken else name
        return self.headings[content]


def made() -> str:
    known = _Sections()
    schemas = {command: model.model_json_schema() for command, model in ROOTS.items()}
    for command, schema in schemas.items():
        for place, name in _places(schema, schema.get("$defs", {}), ""):
            known.places[known.heading(name, schema["$defs"][name], command)][command].append(place)
    parts: list[str] = []
    done: set[str] = set()
    for command, schema in schemas.items():
        parts += _root(command, schema, known, done)
    return page("Config", _ABOUT, parts)


def _root(command: str, schema: Schema, known: _Sections, done: set[str]) -> Iterator[str]:
    sections = schema.get("$defs", {})

    def heading(name: str) -> str:
        return known.heading(name, sections[name], command)

    def link(name: str) -> str:
        return f"[{heading(name)}](#{anchor(heading(name))})"

    yield f"## {command}\n\n{prose(schema['description'])}\n\n{fields(schema, sections, link)}"
    for name in dict.fromkeys(name for _, name in _places(schema, sections, "")):
        if heading(name) not in done:
            done.add(heading(name))
            section, places = sections[name], _listed(known.places[heading(name)])
            about = f"{prose(section['description'])}\n\n{places}"
            yield f"### {heading(name)}\n\n{about}\n\n{fields(section, sections, link)}"


def _listed(places: dict[str, list[str]]) -> str:
    return (
        "Stands at "
        + "; ".join(
            f"{', '.join(map(code, dict.fromkeys(fields)))} of {command}"
            for command, fields in places.items()
        )
        + "."
    )


def _places(schema: Schema, sections: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """Dotted field and name of each section below."""
    for name, field in schema["properties"].items():
        for suffix, section in _below(field):
            place = f"{prefix}{name}{suffix}"
            yield place, section
            yield from _places(sections[section], sections, f"{place}.")


def _below(field: Schema) -> Iterator[tuple[str, str]]:
    if "$ref" in field:
        yield "", name_of(field["$ref"])
    for member in field.get("anyOf", []):
        yield from _below(member)
    for key, suffix in (("items", ".N"), ("additionalProperties", ".NAME")):
        if isinstance(field.get(key), dict):
            yield from ((f"{suffix}{more}", name) for more, name in _below(field[key]))
