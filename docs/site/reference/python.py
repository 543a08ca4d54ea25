"""What `pipeline.scoring` exports: read from its source, since at run time a field has no docstring."""

import ast
import inspect
from collections.abc import Iterator
from typing import Any

from docs.site.reference.markdown import code, page, prose, table
from docs.site.reference.schema import fields
from pipeline import errors
from pipeline.scoring import Limits, RankedPassage, Scorer
from pipeline.scoring.encoding import EncodedPairs
from pipeline.scoring.results import Embedded, Scored

_ABOUT = """All of this comes from `pipeline.scoring`, which needs no Ray and no storage. One `Scorer`
has one model on one device.

```python
from pipeline.scoring import Scorer, ScorerConfig

scorer = Scorer(ScorerConfig(model="BAAI/bge-reranker-v2-m3", max_length=1024))
scorer.score([("what is a panda?", "hi"), ("what is a panda?", "The giant panda is a bear.")])
```

[ScorerConfig](config.md#scorerconfig), [LongPassages](config.md#longpassages) and
[Quantization](config.md#quantization) have the fields of a job's YAML file.
[Coming from another library](../coming-from.md) has these calls beside those of others."""
_EVERYDAY = ("score", "rank", "embed", "embed_windows")
"""What most callers need; the other members are the parts that these are made of."""
RESULTS = (RankedPassage, Scored, Embedded, EncodedPairs)
"""What the members give."""

Function = ast.FunctionDef


def members() -> dict[str, Function]:
    """Of Scorer, those that have a docstring, by name."""
    return {
        node.name: node
        for node in _class_of(Scorer).body
        if isinstance(node, Function)
        and ast.get_docstring(node)
        and (node.name == "__init__" or not node.name.startswith("_"))
    }


def _class_of(kind: type[Any]) -> ast.ClassDef:
    (node,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(node, ast.ClassDef)
    return node


def _signature(node: Function) -> str:
    gives = f" -> {ast.unparse(node.returns)}" if node.returns and node.name != "__init__" else ""
    if any(isinstance(each, ast.Name) and "property" in each.id for each in node.decorator_list):
        return f"{node.name}{gives}"
    named = "Scorer" if node.name == "__init__" else node.name
    taken = ast.unparse(node.args).removeprefix("self").removeprefix(", ")
    return f"{named}({taken}){gives}"


def _paragraphs(docstring: str | None) -> str:
    return "\n\n".join(prose(paragraph) for paragraph in (docstring or "").split("\n\n"))


def _member(node: Function) -> str:
    name = "Making one" if node.name == "__init__" else node.name
    return f"### {name}\n\n```python\n{_signature(node)}\n```\n\n{_paragraphs(ast.get_docstring(node))}"


def _result(kind: type[Any]) -> str:
    rows = [(code(name), code(type_), prose(text)) for name, type_, text in fields_of(kind)]
    about = f"{_paragraphs(inspect.getdoc(kind))}\n\n" if ast.get_docstring(_class_of(kind)) else ""
    return f"### {kind.__name__}\n\n{about}{table(('field', 'type', 'meaning'), rows)}"


def fields_of(kind: type[Any]) -> Iterator[tuple[str, str, str]]:
    """Name, type and docstring of each field."""
    body = _class_of(kind).body
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, ast.unparse(node.annotation), _text(following)


def _text(node: ast.stmt | None) -> str:
    told = node.value if isinstance(node, ast.Expr) else None
    return inspect.cleandoc(str(told.value)) if isinstance(told, ast.Constant) else ""


def _errors() -> str:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    rows = [
        (code(kind.__name__), prose(inspect.getdoc(kind) or ""))
        for kind in kinds
        if issubclass(kind, errors.RayrankError)
    ]
    about = "From `pipeline.errors`. A message names what is wrong, where, and the way out."
    return f"{about}\n\n{table(('error', 'meaning'), rows)}"


def made() -> str:
    known = members()
    others = [node for name, node in known.items() if name not in (*_EVERYDAY, "__init__")]
    limits = Limits.model_json_schema()
    return page(
        "Python",
        _ABOUT,
        [
            "## Scorer",
            _paragraphs(inspect.getdoc(Scorer)),
            *(_member(known[name]) for name in ("__init__", *_EVERYDAY)),
            "## Its parts",
            "What the job and the endpoint call: `score` is `shown(forward(encode(pairs)).scores)`.",
            *map(_member, others),
            "## What they give",
            *map(_result, RESULTS),
            "## Limits",
            f"{prose(limits['description'])}\n\n{fields(limits, {}, str)}",
            "## Errors",
            _errors(),
        ],
    )
