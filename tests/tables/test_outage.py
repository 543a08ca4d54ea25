import errno
from io import BytesIO
from typing import Any

import pytest
from aiohttp import ClientPayloadError, ClientResponseError, RequestInfo
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    FlexibleChecksumError,
    NoCredentialsError,
    ReadTimeoutError,
    SSLError,
)
from fsspec.exceptions import FSTimeoutError
from multidict import CIMultiDict, CIMultiDictProxy
from pyiceberg.exceptions import (
    NoSuchTableError,
    ServerError,
    ServiceUnavailableError,
    TooManyRequestsError,
)
from s3fs.errors import translate_boto_error
from yarl import URL

from pipeline.errors import InputError, RayrankError, TemporaryError
from pipeline.tables import outage
from pipeline.tables.outage import PatientFileSystem, is_outage, wait_no_more, wait_out, waited_out
from pipeline.tables.storage import store_errors

REFUSED = EndpointConnectionError(endpoint_url="http://store")
REQUEST: Any = RequestInfo(URL("http://store"), "GET", CIMultiDictProxy(CIMultiDict()))


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "_FIRST_PAUSE_S", 0.001)


class AnswerError(Exception):
    """As Azure's client has them."""

    def __init__(self, status_code: int) -> None:
        self.status_code = status_code


def s3_answers(status: int, code: str) -> Exception:
    """What s3fs makes of it."""
    told: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    answer = ClientError(told, "ListObjectsV2")
    error: Exception = translate_boto_error(answer, set_cause=False)
    error.__cause__ = answer
    return error


class Store:
    """Answers after some errors."""

    protocol = "store"

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def _answer(self) -> None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)

    def cat_file(self, path: str, end: int | None = None) -> bytes:
        self._answer()
        return path.encode()[:end]

    mv = cat_file

    def open(self, path: str, mode: str) -> "BytesIO":
        store = self

        class Stream(BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                data = super().read(size)
                store._answer()  # it has moved on by then
                return data

        return Stream(path.encode())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (REFUSED, True),
        (ReadTimeoutError(endpoint_url="http://store"), True),
        (ServerError("500"), True),
        (ServiceUnavailableError("503"), True),
        (TooManyRequestsError("429"), True),
        (NoSuchTableError("t"), False),
        (ClientPayloadError("cut"), True),
        (FSTimeoutError(), True),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), True),
        (OSError(errno.EBUSY, "Please reduce your request rate."), True),
        (OSError("When reading: AWS Error NETWORK_CONNECTION during GetObject operation"), True),
        (OSError("Generic S3 error: Error performing GET http://store: error sending request"), True),
        (OSError("after 3 retries - Server returned non-2xx status code: 503 Service Unavailable: , "), True),
        (
            Exception("Server returned non-2xx status code\n  \x1b[31m\u21b3\x1b[0m 503 Service Unavailable"),
            True,
        ),
        (OSError("Server returned non-2xx status code: 403 Forbidden: request 503"), False),
        (AnswerError(503), True),
        (AnswerError(429), True),
        (AnswerError(403), False),
        (s3_answers(429, "TooManyRequests"), True),
        (s3_answers(504, "GatewayTimeout"), True),
        (s3_answers(400, "InvalidArgument"), False),
        (s3_answers(403, "AccessDenied"), False),
        (ClientResponseError(REQUEST, (), status=429), True),
        (ClientResponseError(REQUEST, (), status=400), False),
        (FlexibleChecksumError(error_msg="Expected checksum a did not match calculated checksum: b"), True),
        (OSError("When listing: AWS Error UNKNOWN (HTTP status 429) during ListObjectsV2"), True),
        (OSError("When listing: AWS Error UNKNOWN (HTTP status 400) during ListObjectsV2"), False),
        (SSLError(endpoint_url="https://store", error="self-signed certificate"), False),
        (NoCredentialsError(), False),
        (PermissionError("expired"), False),
        (FileNotFoundError("no such key"), False),
        (OSError(errno.EINVAL, "bad request"), False),
        (ValueError("ours"), False),
    ],
)
def test_what_is_an_outage(error: Exception, expected: bool) -> None:
    assert is_outage(error) is expected


def test_an_outage_is_waited_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    wait_out(60)
    store = Store(REFUSED, REFUSED)
    assert PatientFileSystem(store).cat_file("path", end=2) == b"pa"
    assert store.calls == 3
    assert "store does not answer what='cat_file path' why='Could not connect to the endpoint" in caplog.text


@pytest.mark.parametrize(
    ("longest_s", "error", "method", "calls"),
    [
        (0, REFUSED, "cat_file", 1),  # who did not say how long
        (60, PermissionError("expired"), "cat_file", 1),
        (60, REFUSED, "mv", 1),  # what was moved is not there to be moved again
    ],
)
def test_other_errors_are_told_at_once(longest_s: float, error: Exception, method: str, calls: int) -> None:
    wait_out(longest_s)
    store = Store(error)
    with pytest.raises(type(error)):
        getattr(PatientFileSystem(store), method)("path")
    assert store.calls == calls


def test_an_outage_that_lasts_ends_with_the_stores_error() -> None:
    wait_out(0.05)
    store = Store(*[REFUSED] * 1000)
    with pytest.raises(EndpointConnectionError):
        PatientFileSystem(store).cat_file("path")
    assert 1 < store.calls < 1000


def test_a_read_that_an_outage_ends_tells_it_to_whoever_reads() -> None:
    store = Store()
    stream: Any = PatientFileSystem(store).open("abc", "rb")
    store.errors = [REFUSED]
    with pytest.raises(TemporaryError, match="^abc: can't be read: Could not connect to the endpoint"):
        stream.read()
    store.errors = [PermissionError("expired")]
    with pytest.raises(PermissionError):
        stream.read()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (REFUSED, TemporaryError),
        (OSError(errno.EBUSY, "Please reduce your request rate."), TemporaryError),
        (PermissionError("Access Denied"), InputError),
        (NoCredentialsError(), InputError),
        (ValueError("no such option"), InputError),
    ],
)
def test_a_store_that_may_answer_later_is_told_apart_from_one_that_refuses(
    error: Exception, kind: type[RayrankError]
) -> None:
    told = pytest.raises(RayrankError, match="^s3://bucket/in: can't be read: ")
    with told as caught, store_errors(InputError, "s3://bucket/in: can't be read"):
        raise error
    assert type(caught.value) is kind


def test_who_is_interrupted_waits_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_out(60)
    monkeypatch.setattr(outage, "_FIRST_PAUSE_S", 60)
    wait_no_more()
    with pytest.raises(ConnectionError):
        waited_out(_fail, "it")


def _fail() -> None:
    raise ConnectionError


def test_a_read_that_fails_begins_again_where_it_had_begun() -> None:
    wait_out(60)
    store = Store()
    stream: Any = PatientFileSystem(store).open("abcdefghi", "rb")
    assert stream.read(3) == b"abc"
    store.errors = [REFUSED, REFUSED]
    assert stream.read(3) == b"def"
    assert stream.read() == b"ghi"
    stream.seek(0)
    assert list(stream) == [b"abcdefghi"]
    with stream:
        pass
    assert stream.closed


def test_all_else_is_the_file_systems_own() -> None:
    assert PatientFileSystem(Store()).protocol == "store"
