"""The reference pages say what the code says, and each field of a config has a meaning."""

import json
import re

import pytest

from docs.site.reference import metrics, python
from docs.site.reference.api import document
from docs.site.reference.config import ROOTS
from docs.site.reference.pages import DIRECTORY, PAGES
from docs.site.reference.schema import Schema, meaning, type_of
from pipeline import scoring
from tests.conftest import ROOT


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_fresh(name: str) -> None:
    committed = (DIRECTORY / name).read_text(encoding="utf-8")
    assert committed == PAGES[name](), (
        f"docs/reference/{name} is behind the code: run `make docs`, and commit it"
    )


def unexplained(schemas: dict[str, Schema], every: dict[str, Schema]) -> list[str]:
    return [
        f"{name}.{field}"
        for name, schema in schemas.items()
        for field, told in schema["properties"].items()
        if not meaning(told, every)
    ]


@pytest.mark.parametrize("command", ROOTS)
def test_every_field_of_a_config_has_a_meaning(command: str) -> None:
    schema = ROOTS[command].model_json_schema()
    sections = schema["$defs"] | {command: schema}
    assert unexplained(sections, schema["$defs"]) == [], "write a docstring below the field"
    assert [name for name, section in sections.items() if not section.get("description")] == []


def test_every_field_of_a_request_has_a_meaning() -> None:
    schemas = document()["components"]["schemas"]
    requests = {name: schema for name, schema in schemas.items() if name.endswith("Request")}
    assert len(requests) >= 5
    assert unexplained(requests, schemas) == [], "write a docstring below the field"


def test_every_field_of_a_result_has_a_meaning() -> None:
    told = {
        f"{kind.__name__}.{name}": text for kind in python.RESULTS for name, _, text in python.fields_of(kind)
    }
    assert "RankedPassage.window" in told
    assert [name for name, text in told.items() if not text] == [], "write a docstring below the field"


def test_the_python_page_has_all_that_is_exported() -> None:
    made = python.made()
    assert [name for name in scoring.__all__ if name not in made] == []
    assert "score(pairs: Iterable[tuple[str, str]]) -> npt.NDArray[np.float32]" in made
    assert {"score", "rank", "embed", "encode", "forward", "family"} <= python.members().keys()


def test_metrics_have_their_labels() -> None:
    labels = {metric.name: metric.labels for metric in [*metrics.of_jobs(), *metrics.of_the_endpoint()]}
    assert labels["rayrank_rejected_rows_total"] == ("output", "reason")
    assert labels["rayrank_batch_fill"] == ("model",)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "exclusiveMinimum": 0}, "whole number above 0"),
        ({"type": "number", "minimum": 0, "maximum": 1200}, "number from 0 to 1200"),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, "text or null"),
        ({"enum": ["rrf", "weighted"]}, "`rrf`, `weighted`"),
        ({"type": "array", "items": {"$ref": "#/$defs/LevelConfig"}}, "list of <LevelConfig>"),
        ({"additionalProperties": {"type": "number"}, "type": "object"}, "mapping of names to number"),
    ],
    ids=json.dumps,
)
def test_types_are_told_in_words(schema: Schema, words: str) -> None:
    assert type_of(schema, "<{}>".format) == words


def test_pages_name_metrics_that_there_are() -> None:
    every = [*metrics.of_jobs(), *metrics.of_first_stages(), *metrics.of_the_endpoint()]
    known = {f"ray_{metric.name}" for metric in every}
    for page in sorted(ROOT.glob("docs/*.md")):
        named = set(re.findall(r"ray_rayrank_\w+[a-z]", page.read_text()))
        assert {re.sub("_(bucket|sum|count)$", "", name) for name in named} <= known, page.name
