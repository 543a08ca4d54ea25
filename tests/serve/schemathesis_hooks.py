"""What schemathesis shall not take for a fault: requests that fit their schema, refused with reason."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.openapi.checks import RejectedPositiveData


@schemathesis.hook
def before_call(
    context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]
) -> None:
    """Time enough: what becomes of requests that have too little is tested elsewhere."""
    with suppress(ValueError):  # of what is no number
        if 0 < float(case.headers.get("x-request-timeout-seconds", "")) < 10:
            case.headers["x-request-timeout-seconds"] = "10"


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext,
    failure: Failure,
    case: schemathesis.Case[Any],
    response: schemathesis.Response,
) -> bool:
    """Whether it is one. What JSON Schema can't say is said here, with what the server says of it."""
    if not isinstance(failure, RejectedPositiveData) or not isinstance(case.body, dict):
        return True
    text = response.content.decode()
    return not any(words in text and holds(case.body) for words, holds in _BEYOND_SCHEMA.items())


def _lists(body: dict[str, Any]) -> list[list[Any]]:
    return [value for value in body.values() if isinstance(value, list)]


_BEYOND_SCHEMA: dict[str, Callable[[dict[str, Any]], bool]] = {
    # JSON Schema takes 1.0 for an integer, the dialects' own servers don't.
    "should be a valid integer": lambda body: any(isinstance(value, float) for value in body.values()),
    # Query and passage must not both be empty.
    "`inputs` cannot be empty": lambda body: body["query"] == "" and "" in body["texts"],
    # Two lists have to be of one length; of several pairs of lists the first one counts.
    "Input lengths must be either": lambda body: max(map(len, _lists(body))) > 1,
    "At least one text": lambda body: [] in _lists(body),
    # Which fields an object has to have is said by the request.
    "needs '": lambda body: any(isinstance(entry, dict) for entry in body["documents"]),
    # Cohere's v1 takes no empty texts, which Jina's, under the same path, does.
    "invalid request: query": lambda body: not body["query"].strip(),
    "invalid request: document at": lambda body: "" in body["documents"],
    # Which models there are is the config's. The other dialects answer 404, which always may be.
    "INPUT_MODEL_NOT_FOUND": lambda body: bool(body["model"]),
    # Which layers there are, and how many positions, is the model's.
    "no cutoff layers": lambda body: body["cutoff_layer"] is not None,
    " positions": lambda body: body["truncate_prompt_tokens"] > 512,
}
