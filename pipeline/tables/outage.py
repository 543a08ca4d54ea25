"""Stores that can't be reached for a while: their errors told from others, and waited out.

A store's own client tries a request for some seconds. What it then gives up is tried again here, for as long
as the job's config says (`max_outage_s`), by every process and for every request.
"""

import errno
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pipeline import interruption, log
from pipeline.errors import TemporaryError

Result = TypeVar("Result")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _LOOKS_S = 1.0, 10.0, 0.1
_OUTAGES = {
    "aiohttp.client_exceptions.ClientConnectionError",
    "aiohttp.client_exceptions.ClientPayloadError",
    "azure.core.exceptions.ServiceRequestError",
    "azure.core.exceptions.ServiceResponseError",
    "botocore.exceptions.ConnectionError",
    "botocore.exceptions.FlexibleChecksumError",
    "botocore.exceptions.HTTPClientError",
    "botocore.exceptions.IncompleteReadError",
    "botocore.parsers.ResponseParserError",
    "builtins.ConnectionError",
    "builtins.TimeoutError",
    "pyiceberg.exceptions.ServerError",
    "pyiceberg.exceptions.ServiceUnavailableError",
    "pyiceberg.exceptions.TooManyRequestsError",
    "requests.exceptions.ConnectionError",
    "requests.exceptions.Timeout",
}
_MISTAKES = {"botocore.exceptions.SSLError", "aiohttp.client_exceptions.ClientSSLError"}
"""Also kinds of ConnectionError: a certificate that is not trusted now won't be so in a minute."""
_BUSY = {errno.EBUSY, errno.EREMOTEIO}
"""What s3fs makes of the answers 500, 503, and SlowDown."""
_TEXTS = re.compile(
    r"AWS Error (NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|UNKNOWN \(HTTP status (5\d\d|429)\))"
    r"|error sending request|non-2xx status code(\W|\[\d+m)*(5\d\d|429)"
)
"""How pyarrow's own S3 tells it, and object_store, by which lance and deltalake read, this one in colours."""
_REPEATABLE = {
    *("cat_file", "exists", "find", "glob", "info", "isdir", "isfile", "ls"),
    *("makedirs", "pipe_file", "put_file", "rm", "rm_file"),
}
"""Of a file system: what may be done twice. `mv` is not among them."""


class _Patience:
    """Of this process: how long an outage is waited out; not at all, unless a job says so."""

    longest_s = 0.0
    # No threading.Event: an interrupt may leave its lock taken, and who ends the waiting would wait for it.
    is_over = False


_patience = _Patience()


def wait_out(longest_s: float) -> None:
    """From now on, in this process."""
    _patience.longest_s = longest_s
    _patience.is_over = False


def wait_no_more() -> None:
    """Whoever waits goes on with the error: the process shall end."""
    _patience.is_over = True


def is_outage(error: BaseException) -> bool:
    """Whether the store may answer later, as far as its client's error tells."""
    if isinstance(error, OSError) and error.errno in _BUSY:
        return True
    if isinstance(error, (FileNotFoundError, FileExistsError, PermissionError)):
        return False
    kinds = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
    if not kinds.isdisjoint(_MISTAKES):
        return False
    if any(status == 429 or 500 <= status < 600 for status in _http_statuses(error)):
        return True
    return not kinds.isdisjoint(_OUTAGES) or _TEXTS.search(str(error)) is not None


def _http_statuses(error: BaseException) -> Iterator[int]:
    """Of aiohttp's ClientResponseError, Azure's HttpResponseError, gcsfs's HttpError; of botocore's
    ClientError, also where s3fs made EIO of it.
    """
    for name in ("status", "status_code", "code"):
        if isinstance(status := getattr(error, name, None), int):
            yield status
            return
    for one in (error, error.__cause__):
        answer = getattr(one, "response", None)
        if isinstance(answer, dict):
            yield answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def waited_out(attempt: Callable[[], Result], what: str) -> Result:
    """What `attempt` gives, tried again while the store is away. Raises its last error after that."""
    began = None
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            result = attempt()
        except Exception as error:
            now = time.monotonic()
            began = now if began is None else began
            left_s = began + _patience.longest_s - now
            if left_s <= 0 or not is_outage(error) or interruption.came():
                raise
            log.warning("store does not answer", what=what, why=_shortly(error), waits_s=round(left_s))
            if not _pause(min(pause_s, left_s)):
                raise
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        else:
            if began is not None:
                log.info("store answers again", what=what, after_s=time.monotonic() - began)
            return result


def _pause(seconds: float) -> bool:
    """Whether to try again after it."""
    end = time.monotonic() + seconds
    while not _patience.is_over and (left_s := end - time.monotonic()) > 0:
        time.sleep(min(left_s, _LOOKS_S))
    return not _patience.is_over


def _shortly(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


class PatientFileSystem:
    """A file system of fsspec that waits out its store's outages; in all else the same."""

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._fs, name)
        if name not in _REPEATABLE:
            return value
        return lambda *args, **options: waited_out(
            lambda: value(*args, **options), f"{name} {args[0] if args else ''}"
        )

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        stream = waited_out(lambda: self._fs.open(path, mode, **options), f"open {path}")
        return _PatientStream(stream, path) if mode == "rb" else stream


class _PatientStream:
    """A file that is read: each read begins where the one that failed had begun."""

    def __init__(self, stream: Any, path: str) -> None:
        self._stream, self._path = stream, path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> "_PatientStream":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __iter__(self) -> "_PatientStream":
        return self

    def __next__(self) -> bytes:
        if line := self.readline():
            return line
        raise StopIteration

    def read(self, *size: int) -> bytes:
        return self._again(lambda: bytes(self._stream.read(*size)))

    def readinto(self, buffer: Any) -> int:
        return self._again(lambda: int(self._stream.readinto(buffer)))

    def readline(self, *size: int) -> bytes:
        return self._again(lambda: bytes(self._stream.readline(*size)))

    def _again(self, read: Callable[[], Result]) -> Result:
        start, broken = self._stream.tell(), False

        def attempt() -> Result:
            nonlocal broken
            if broken:  # it may have moved on before it failed
                self._stream.seek(start)
            broken = True
            return read()

        # Readers of every format end up here, few of which expect an error of a store's client.
        try:
            return waited_out(attempt, f"read {self._path}")
        except Exception as error:
            if not is_outage(error):
                raise
            raise TemporaryError(f"{self._path}: can't be read: {error}") from error
