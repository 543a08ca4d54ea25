"""What can be wrong with a request, before a dialect puts it into its own words."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal
from urllib.parse import quote

from starlette.exceptions import HTTPException

Kind = Literal[
    "media_type",
    "json",
    "invalid",
    "header",
    "empty",
    "too_many",
    "text_size",
    "body_size",
    "late_body",
    "no_key",
    "unauthorized",
    "forbidden",
    "unknown_path",
    "method",
    "unknown_model",
    "too_long",
    "unscorable",
    "rate_limit",
    "overloaded",
    "timeout",
    "unavailable",
    "internal",
]

STATUS: dict[Kind, int] = {
    "media_type": 415,
    "json": 400,
    "invalid": 422,
    "header": 422,
    "empty": 422,
    "too_many": 413,
    "text_size": 413,
    "body_size": 413,
    "late_body": 408,
    "no_key": 401,
    "unauthorized": 401,
    "forbidden": 403,
    "unknown_path": 404,
    "method": 405,
    "unknown_model": 404,
    "too_long": 422,
    "unscorable": 422,
    "rate_limit": 429,
    "overloaded": 429,
    "timeout": 408,
    "unavailable": 503,
    "internal": 500,
}
"""Where a dialect has no status of its own for it."""

MEANING: dict[Kind, str] = {
    "media_type": "a body that is not declared as JSON",
    "json": "broken JSON",
    "invalid": "a field that is missing or wrong",
    "header": "`X-Request-Timeout-Seconds` that is no positive number",
    "empty": "no passages, or an empty text where one is needed",
    "too_many": "too many passages",
    "text_size": "a query or passage of too many characters",
    "body_size": "a body that is too large",
    "late_body": "a body that stopped arriving",
    "no_key": "no API key",
    "unauthorized": "a wrong API key",
    "forbidden": "a client on another machine, where the server has no keys",
    "unknown_path": "an unknown path",
    "method": "a method that the path does not take",
    "unknown_model": "an unknown model",
    "too_long": "a pair that is too long, where cutting is off",
    "unscorable": "a pair without a finite score",
    "rate_limit": "the rate limit of the key is reached",
    "overloaded": "the server has too much to do",
    "timeout": "the time that the request may take is over",
    "unavailable": "the endpoint is starting, or a process just died",
    "internal": "a bug of this server",
}
"""For the documentation of the statuses."""


class Problem(HTTPException):
    """Why a request gets no scores. The message is for the client: it holds no text of users."""

    def __init__(
        self, kind: Kind, message: str, field: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(STATUS[kind], message)
        self.kind = kind
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s


class TooManyPassages(Problem):
    """More passages than the server takes in one request."""

    def __init__(self, passages: int, limit: int, noun: str) -> None:
        """noun: what the dialect calls passages."""
        self.passages = passages
        self.limit = limit
        super().__init__(
            "too_many",
            f"{passages} {noun} are more than the {limit} allowed (api.max_passages of the server's config):"
            " send fewer at a time",
        )


class UnknownModel(Problem):
    """A model that is not served."""

    def __init__(self, model: str, known: Sequence[str]) -> None:
        self.available = f"Available models: {', '.join(known)}."
        super().__init__("unknown_model", f"Model {model!r} not found. {self.available}", model)


def unrouted(error: HTTPException, path: str, paths: Iterable[str]) -> Problem | None:
    """What the routing says, as a Problem: no such path, no such method. None for what else it may say.

    paths: those that there are.
    """
    if error.status_code == STATUS["unknown_path"]:
        why = "this server reranks"
        if "embed" in path:
            why = "this server reranks, and gives no embeddings"
        elif meant := max(filter(path.endswith, paths), key=len, default=None):
            why = f"{meant} is one, so the client's base URL may have a part too many"
        return Problem("unknown_path", f"there is no such path: {why}; GET /docs tells all paths")
    if error.status_code == STATUS["method"]:
        allowed = (error.headers or {}).get("Allow", "")
        return Problem("method", f"this path takes {allowed}; GET /docs tells what each path takes")
    return None


_OUR_WORDS = {"too_short": "Needs at least 1 item", "extra_forbidden": "There is no such field"}
"""For what pydantic says in words of its own."""


_NAMES_TOLD, _NAME_LENGTH = 10, 40
"""Of fields that a request should not have."""


def listed_names(names: Iterable[str]) -> str:
    """Names of fields that are not known, for a header or a message: some, none long, all in ASCII."""
    return ", ".join(quote(name[:_NAME_LENGTH]) for name in [*names][:_NAMES_TOLD])


def invalid(errors: Sequence[Any], unknown: str = "") -> Problem:
    """A Problem of pydantic's errors. Their `input`, which holds the user's texts, is left out, and of long
    names, which can only be the user's, the rest.

    unknown: names of fields that were passed over, of which one may be meant.
    """
    mistakes = []
    for error in errors:
        place = [str(part)[:_NAME_LENGTH] for part in error["loc"] if part != "body"]
        mistakes.append((".".join(place), _OUR_WORDS.get(error["type"], str(error["msg"]))))
    message = "; ".join(f"{field}: {text}" if field else text for field, text in mistakes[:10])
    if unknown:
        message += f"; not known here: {unknown}"
    return Problem("invalid", message, mistakes[0][0] if mistakes else None)
