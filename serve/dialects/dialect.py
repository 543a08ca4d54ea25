"""What the API needs of a dialect."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from serve.problems import Problem
from serve.work import Scores, Work


class RequestBody(BaseModel):
    """Fields that are not known are ignored, as all of these APIs do; a wrong type is not converted."""

    model_config = ConfigDict(strict=True, extra="ignore")


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _checked(value: object) -> object:
    """One mistake where a union would tell of each of its members."""
    if isinstance(value, str | dict):
        return value
    raise PydanticCustomError("document", "Input should be a string or an object")


Texts = Annotated[list[str], BeforeValidator(_listed, json_schema_input_type=str | list[str])]
"""A text for a list of one."""
Document = Annotated[str | dict[str, Any], BeforeValidator(_checked)]
Documents = Annotated[
    list[Document], BeforeValidator(_listed, json_schema_input_type=str | list[str | dict[str, Any]])
]
ONE_OR_MORE: JsonDict = {"minItems": 1}
"""In the schema. None at all is refused later, in the dialect's own words."""


@dataclass(frozen=True)
class Call:
    """A request of any dialect."""

    model: str | None
    """Null or `default`: the first that is served."""
    work: Work


@dataclass(frozen=True)
class Answer:
    """What a dialect makes its response from."""

    request_id: str
    model: str
    scores: Scores

    def ranked(self, top_n: int | None = None) -> list[tuple[int, float]]:
        """(index, score), best first, equal scores in the order of the passages; the top_n of them."""
        order = np.argsort(-self.scores.scores, kind="stable")[:top_n]
        return [(int(index), float(self.scores.scores[index])) for index in order]

    @property
    def tokens(self) -> int:
        return int(self.scores.tokens.sum())


class Dialect(Protocol):
    """A module of this package, or a part of one."""

    def error(self, problem: Problem, request_id: str) -> tuple[int, Any]:
        """Status and body, a text or what becomes JSON."""


def texts(documents: Sequence[str | dict[str, Any]], fields: Sequence[str] = ("text",)) -> list[str]:
    """Documents as passages: strings, or objects of which `fields` are read.

    Several fields, and ones other than `text`, are put as `name: value` lines, as Cohere does (rank_fields).
    Raises Problem for an object without any of them.
    """
    passages = []
    for index, document in enumerate(documents):
        if isinstance(document, str):
            passages.append(document)
            continue
        found = [(name, document[name]) for name in fields if name in document]
        if not found or not all(isinstance(value, str) for _, value in found):
            wanted = " or ".join(repr(name) for name in fields)
            raise Problem("invalid", f"documents.{index}: needs {wanted}, a string", f"documents.{index}")
        bare = len(found) == 1 and found[0][0] == "text"
        passages.append(found[0][1] if bare else "\n".join(f"{name}: {value}" for name, value in found))
    return passages
