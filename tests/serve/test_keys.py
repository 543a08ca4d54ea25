"""API keys and their limits."""

import time

import httpx2
import pytest

from pipeline.errors import ConfigError
from serve.config import ApiConfig, KeysConfig
from serve.keys import Gate, Keyring
from serve.problems import Problem
from tests.conftest import TINY
from tests.serve.local import eventually, serving

SEARCH, BATCH = "search-key-of-enough-length", "batch-key-of-enough-length"
BODY = {"query": "q", "texts": ["a", "b"]}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no API keys there"),
        ("search", "entry 1 is no `name:key`"),
        (
            f"search:{SEARCH}\nbatch:short",
            "entry 2: the key named 'batch' is too short; a key has at least 16 char",
        ),
        (f"search:{SEARCH},search:{BATCH}", "entry 2: there is a key named 'search' already"),
        (f"{SEARCH}:search", "entry 1: the key is too short; a key has at least 16 characters"),
        (f"équipe:{SEARCH}é", "entry 1: the key named 'équipe' has other characters than printable ASCII"),
    ],
)
def test_malformed_keys_are_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setenv("KEYS", text)
    with pytest.raises(ConfigError, match=message) as caught:
        Keyring(KeysConfig(env="KEYS"))
    assert SEARCH not in str(caught.value)


def test_a_variable_that_is_not_set_is_named_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"api.keys.env NOWHERE_SET: is not set here. .* runtime_env"):
        Keyring(KeysConfig(env="NOWHERE_SET"))


def test_without_keys_only_this_machine_is_served_unless_the_config_says_so() -> None:
    closed, opened = Gate(ApiConfig(keys="none")), Gate(ApiConfig(keys="none", anyone=True))
    for client in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert closed.admit(None, client) == "anonymous"
    for other in ("10.0.0.7", "::ffff:10.0.0.7", "unix", None):
        with pytest.raises(Problem, match="only clients on this machine"):
            closed.admit(None, other)
        assert opened.admit(None, other) == "anonymous"


def test_keys_are_asked_for_and_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYS", f"search:{SEARCH},batch:{BATCH}")
    limits = {"batch": {"requests_per_minute": 2}, "search": {"pairs_per_minute": 3}}
    long = {"query": "q", "texts": ["a"] * 4}
    with (
        serving({"tiny": {"model": TINY}}, keys={"env": "KEYS"}, limits_of=limits) as server,
        httpx2.Client(base_url=server.url) as client,
    ):
        for headers in (
            {},
            bearer("wrong"),
            {"Authorization": "Bearer"},
            {"Authorization": SEARCH},
            {"Authorization": "Basic x"},
        ):
            assert client.post("/rerank", json=BODY, headers=headers).status_code == 401
        assert client.get("/info").status_code == 401
        assert client.get("/anything").status_code == 401
        eventually(lambda: server.reports.seen[-1].path == "/anything")
        assert server.reports.seen[-1].route == ""  # no label of the metrics for whoever asks for anything
        assert client.get("/v1/models").status_code == 401
        assert [client.get(path).status_code for path in ("/health", "/ready", "/", "/openapi.json")] == [
            200
        ] * 4
        begin = time.monotonic()
        assert client.post("/rerank", json=BODY, headers=bearer(SEARCH)).status_code == 200
        refused = client.post("/rerank", json=BODY, headers={"Authorization": f"bearer {SEARCH}"})
        since_s = time.monotonic() - begin
        assert refused.status_code == 429  # four pairs of three a minute
        assert 60 - since_s <= int(refused.headers["Retry-After"]) <= 61
        too_many = client.post("/rerank", json=long, headers=bearer(SEARCH))
        assert too_many.status_code == 413
        assert "4 pairs are more than the 3 that this key may ask for in a minute" in too_many.text
        statuses = [client.post("/rerank", json=BODY, headers=bearer(BATCH)).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert {report.key for report in server.reports.seen} == {"", "search", "batch"}


def test_requests_count_whatever_becomes_of_them_and_before_their_body_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KEYS", f"search:{SEARCH},batch:{BATCH}")
    with (
        serving({"tiny": {"model": TINY}}, keys={"env": "KEYS"}, limits={"requests_per_minute": 4}) as server,
        httpx2.Client(base_url=server.url, headers=bearer(SEARCH)) as client,
    ):
        asked = [
            client.post("/rank", json={"query": "q"}),
            client.post("/rerank", json={**BODY, "model": "none"}),
            client.get("/info"),
            client.get("/nowhere"),
        ]
        assert [answer.status_code for answer in asked] == [422, 404, 200, 404]
        for refused in (
            client.post("/rank", content=b"{", headers={"Content-Type": "application/json"}),
            client.get("/info"),
        ):
            assert refused.status_code == 429
            assert "rate limit of 4 requests a minute exceeded" in refused.text
            assert refused.headers["Retry-After"]
        assert client.get("/ready").status_code == 200
        assert client.post("/rerank", json=BODY, headers=bearer(BATCH)).status_code == 200
