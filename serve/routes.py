"""The paths of the API: which dialects speak at each, and whose a request is."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple, cast

from starlette.datastructures import Headers

from pipeline.registry import load, names_in
from serve import dialects
from serve.dialect import Dialect, ReadingEndpoint, ScoringEndpoint


class Spoken(NamedTuple):
    """An endpoint and whose it is."""

    dialect: Dialect
    endpoint: ScoringEndpoint[Any]


class ScoringPath:
    """The endpoints that share one path."""

    def __init__(self, shared: Iterable[Spoken]) -> None:
        self.shared = sorted(shared, key=lambda spoken: spoken.endpoint.recognises is not None)
        """The one that takes what no other recognises is first."""
        paths = {spoken.endpoint.path for spoken in self.shared}
        names = [spoken.dialect.NAME for spoken in self.shared if spoken.endpoint.recognises is None]
        assert len(names) == 1, f"{paths}: one endpoint takes what is left, and not those of {names}"
        (self.path,) = paths

    def recognised(self, headers: Headers, body: object = None) -> Spoken:
        """Whose request it is. body: its JSON, where it has been read."""
        for spoken in self.shared[1:]:
            recognises = spoken.endpoint.recognises
            if recognises is not None and recognises(headers, body):
                return spoken
        return self.shared[0]


class Routes:
    """All endpoints of the modules in serve.dialects."""

    def __init__(self, elsewhere: Dialect) -> None:
        """elsewhere: whose words are used where no dialect is spoken."""
        self._elsewhere = elsewhere
        self.dialects = [cast("Dialect", load(dialects, name)) for name in names_in(dialects)]
        shared = defaultdict[str, list[Spoken]](list)
        self.reading: dict[str, tuple[Dialect, ReadingEndpoint]] = {}
        for dialect in self.dialects:
            for endpoint in dialect.ENDPOINTS:
                if isinstance(endpoint, ScoringEndpoint):
                    shared[endpoint.path].append(Spoken(dialect, endpoint))
                else:
                    assert endpoint.path not in self.reading, endpoint.path
                    self.reading[endpoint.path] = (dialect, endpoint)
        self.scoring = {path: ScoringPath(spoken) for path, spoken in shared.items()}

    def dialect_of(self, path: str, headers: Headers) -> Dialect:
        """What is spoken there, as far as it is known before the body is read.

        A client whose base URL has a part too many asks for a path that ends as one of its API does. Another
        path below /v1 or /v2 is taken for a misspelt one of the API that is there.
        """
        path = path.rstrip("/")
        if (scoring := self._ending(path)) is not None:
            return scoring.recognised(headers).dialect
        if path in self.reading:
            return self.reading[path][0]
        if (scoring := self._of_version(path)) is not None:
            return scoring.recognised(headers).dialect
        return self._elsewhere

    def _of_version(self, path: str) -> ScoringPath | None:
        """The first below the same /v1 or /v2."""
        version, slash, _ = path.removeprefix("/").partition("/")
        same = (each for known, each in self.scoring.items() if known.startswith(f"/{version}/"))
        return next(same, None) if slash else None

    def _ending(self, path: str) -> ScoringPath | None:
        """The scoring path that this one is, or ends with: the longest."""
        known = (each for each in self.scoring if path.endswith(each))
        return self.scoring.get(max(known, key=len, default=""))
