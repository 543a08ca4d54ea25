"""API keys and their limits."""

import asyncio
import logging
import os
import threading
import time
from pathlib import Path

import httpx2
import pytest

from pipeline.errors import ConfigError
from serve.config import ApiConfig, KeysConfig
from serve.keys import Gate, Keyring, Window, until_readable
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


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="api.keys.file .*/keys: "):
        Keyring(KeysConfig(file=f"{tmp_path}/keys"))


def test_names_are_of_any_alphabet_and_blanks_or_a_byte_order_mark_are_no_part_of_them(
    tmp_path: Path,
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"équipe : {SEARCH} \r\n团队:{BATCH}\n", encoding="utf-8-sig")
    keyring = Keyring(KeysConfig(file=str(file)))
    assert (keyring.name_of(SEARCH), keyring.name_of(BATCH)) == ("équipe", "团队")
    file.write_bytes(f"équipe:{SEARCH}".encode("latin-1"))
    with pytest.raises(ConfigError, match="api.keys.file .*/keys: is no text in UTF-8"):
        Keyring(KeysConfig(file=str(file)))


def test_a_changed_file_is_read_again_and_a_broken_one_changes_nothing_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rayrank")
    file = tmp_path / "keys"
    file.write_text(f"search:{SEARCH}\n\n")
    keyring = Keyring(KeysConfig(file=str(file)))
    assert (keyring.name_of(SEARCH), keyring.name_of(BATCH)) == ("search", None)
    file.write_text(f"batch:{BATCH}\n")
    os.utime(file, ns=(1, 1))
    assert (keyring.name_of(SEARCH), keyring.name_of(BATCH)) == (None, "batch")
    assert keyring.problem == ""
    file.write_text("nonsense")
    os.utime(file, ns=(2, 2))
    assert [keyring.name_of(BATCH) for _ in range(2)] == ["batch"] * 2
    assert keyring.problem == f"api.keys.file {file}: entry 1 is no `name:key`"
    file.unlink()
    assert [keyring.name_of(BATCH) for _ in range(2)] == ["batch"] * 2
    assert keyring.problem == f"api.keys.file {file}: No such file or directory"
    file.write_text(f"{SEARCH}:search")
    os.utime(file, ns=(3, 3))
    assert keyring.name_of(BATCH) == "batch"
    file.write_text(f"search:{SEARCH}\n")
    os.utime(file, ns=(4, 4))
    assert (keyring.name_of(SEARCH), keyring.name_of(BATCH), keyring.problem) == ("search", None, "")
    told = [(record.levelname, "not read" in record.message) for record in caplog.records]
    assert told == [("ERROR", True)] * 3 + [("INFO", False)]
    assert SEARCH not in caplog.text


def test_a_broken_file_of_keys_is_told_without_a_request_that_has_a_key(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"search:{SEARCH}")
    with serving({"tiny": {"model": TINY}}, keys={"file": str(file)}) as server:
        assert httpx2.get(f"{server.url}/ready").json()["keys"] == ""
        file.write_text(f"search:{SEARCH}\nbatch")
        os.utime(file, ns=(1, 1))
        ready = httpx2.get(f"{server.url}/ready")
        assert (ready.status_code, ready.json()["keys"]) == (
            200,
            f"api.keys.file {file}: entry 2 is no `name:key`",
        )
        assert httpx2.post(f"{server.url}/rerank", json=BODY, headers=bearer(SEARCH)).status_code == 200


def test_a_key_that_stays_is_never_refused_while_the_file_is_written_again_and_again(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"search:{SEARCH}\n")
    keyring = Keyring(KeysConfig(file=str(file)))
    done = threading.Event()

    def rotate() -> None:
        for number in range(300):
            new = f"batch:{BATCH}{number}\n" if number % 2 else ""
            file.write_text(f"{new}search:{SEARCH}\n")  # empty for a moment
        done.set()

    writer = threading.Thread(target=rotate)
    writer.start()
    names = set()
    while not done.is_set():
        names.add(keyring.name_of(SEARCH))
    writer.join()
    assert names == {"search"}
    assert keyring.name_of(f"{BATCH}299") == "batch"


def test_a_file_that_is_written_while_it_is_read_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"search:{SEARCH}\n")
    keyring = Keyring(KeysConfig(file=str(file)))
    really = os.fstat

    def written_meanwhile(descriptor: int) -> os.stat_result:
        status = really(descriptor)
        file.write_text(f"batch:{BATCH}\nsearch:{SEARCH}\n")
        return status

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", written_meanwhile)
        with pytest.raises(ConfigError, match="is being written; try again"):
            Keyring(KeysConfig(file=str(file)))
        file.write_text(f"search:{SEARCH} \n")
        assert keyring.name_of(BATCH) is None
    assert [keyring.name_of(key) for key in (SEARCH, BATCH)] == ["search", "batch"]


def test_an_api_without_its_file_of_keys_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.keys._AGAIN_S", 0.01)
    file = tmp_path / "keys"

    async def mended_later() -> None:
        waiting = asyncio.create_task(until_readable(KeysConfig(file=str(file))))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        file.write_text(f"search:{SEARCH}")
        async with asyncio.timeout(10):
            await waiting
        await until_readable("none")
        with pytest.raises(ConfigError, match="is not set here"):
            await until_readable(KeysConfig(env="NOWHERE_SET"))

    asyncio.run(mended_later())


def test_no_minute_has_more_than_a_minutes_share() -> None:
    clock = [0.0]
    window = Window(60, lambda: clock[0])
    allowed: list[float] = []
    while clock[0] < 200:
        if not window.wait_s(1):
            window.take(1)
            allowed.append(clock[0])
        clock[0] += 0.125
    most = max(sum(begin <= at < begin + 60 for at in allowed) for begin in allowed)
    assert most == 60
    assert len(allowed) >= 60 * 4 - 30  # and in the long run as much as it says


def test_it_tells_when_there_is_room_again() -> None:
    clock = [1000.0]
    window = Window(60, lambda: clock[0])
    window.take(50)
    clock[0] = 1010.0
    window.take(10)
    assert window.wait_s(1) == pytest.approx(50, abs=0.1)
    assert window.wait_s(50) == pytest.approx(50, abs=0.1)
    assert window.wait_s(51) == pytest.approx(60, abs=0.1)
    clock[0] += window.wait_s(51)
    assert window.wait_s(60) == 0


def test_a_window_stays_small_however_many_ask() -> None:
    clock = [0.0]
    window = Window(10**9, lambda: clock[0])
    for _ in range(20_000):
        window.take(1)
        clock[0] += 0.001
    assert len(window._taken) <= 401
    assert window.wait_s(10**9 - 20_000) == 0


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
