"""Pairs as vLLM's clients give them: two sides by one of four pairs of names, 1:1, 1:N or N:N."""

from typing import Any

from serve.dialect import ONE_OR_MORE, RequestBody
from serve.problems import Problem

_NAMES = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))
"""Of what is scored against what, the oldest last."""


def names_both_sides(schema: dict[str, Any]) -> None:
    """Say in the JSON schema of a body that it has one of these pairs."""
    given = {"not": {"type": "null"}} | ONE_OR_MORE
    schema["anyOf"] = [
        {"required": list(names), "properties": dict.fromkeys(names, given)} for names in _NAMES
    ]


def sides_of(body: RequestBody) -> tuple[list[str], list[str]]:
    """As many queries as passages. body: has a field, a list of texts or None, by each of the names.

    Raises Problem.
    """
    lacking = []
    for names in _NAMES:
        sides = [getattr(body, name) for name in names]
        if None not in sides:
            return _paired(*sides)
        if sides.count(None) == 1:
            lacking.append(names[sides.index(None)])
    if not lacking:
        pairs = ", ".join(" and ".join(names) for names in _NAMES)
        raise Problem(
            "invalid", f"needs queries and what they are scored against, by one pair of names: {pairs}"
        )
    raise Problem("invalid", f"{lacking[0]}: Field required", lacking[0])


def _paired(queries: list[str], passages: list[str]) -> tuple[list[str], list[str]]:
    if not queries:
        raise Problem("empty", "At least one text element must be given")
    if not passages:
        raise Problem("empty", "At least one text_pair element must be given")
    if len(queries) == 1:
        return queries * len(passages), passages
    if len(queries) != len(passages):
        raise Problem("empty", "Input lengths must be either 1:1, 1:N or N:N")
    return queries, passages
