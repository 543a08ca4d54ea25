"""The file of API keys: read, read again, and what becomes of it while the endpoint serves."""

import asyncio
import logging
import os
import threading
from io import FileIO
from pathlib import Path

import httpx2
import pytest

from pipeline.errors import ConfigError
from pipeline.plain_file import open_plain
from serve.config import KeysConfig
from serve.keys import Keyring, until_readable
from tests.conftest import TINY
from tests.serve.local import eventually, serving
from tests.serve.test_keys import BATCH, BODY, SEARCH, bearer


def name_now(keyring: Keyring, key: str) -> str | None:
    """By the file as it is now."""
    keyring.read_again()
    return keyring.name_of(key)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="api.keys.file .*/keys: "):
        Keyring(KeysConfig(file=f"{tmp_path}/keys"))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("pipe", "is no file"),
        ("device", "is no file"),
        ("folder", "Is a directory"),
        ("huge", r"has 16,777,217 bytes, which no file of keys has"),
    ],
)
def test_what_is_no_file_of_keys_is_refused_and_not_waited_for(
    tmp_path: Path, kind: str, reason: str
) -> None:
    place = tmp_path / "keys"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "device":
        place.symlink_to("/dev/zero")
    elif kind == "folder":
        place.mkdir()
    else:
        place.touch()
        os.truncate(place, (1 << 24) + 1)
    with pytest.raises(ConfigError, match=f"api.keys.file {place}: {reason}$"):
        Keyring(KeysConfig(file=str(place)))


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
    assert (name_now(keyring, SEARCH), name_now(keyring, BATCH)) == ("search", None)
    file.write_text(f"batch:{BATCH}\n")
    os.utime(file, ns=(1, 1))
    assert (name_now(keyring, SEARCH), name_now(keyring, BATCH)) == (None, "batch")
    assert keyring.problem == ""
    file.write_text("nonsense")
    os.utime(file, ns=(2, 2))
    assert [name_now(keyring, BATCH) for _ in range(2)] == ["batch"] * 2
    assert keyring.problem == f"api.keys.file {file}: entry 1 is no `name:key`"
    file.unlink()
    assert [name_now(keyring, BATCH) for _ in range(2)] == ["batch"] * 2
    assert keyring.problem == f"api.keys.file {file}: No such file or directory"
    file.write_text(f"{SEARCH}:search")
    os.utime(file, ns=(3, 3))
    assert name_now(keyring, BATCH) == "batch"
    file.write_text(f"search:{SEARCH}\n")
    os.utime(file, ns=(4, 4))
    assert (name_now(keyring, SEARCH), name_now(keyring, BATCH), keyring.problem) == ("search", None, "")
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
        eventually(lambda: told(server.url) == f"api.keys.file {file}: entry 2 is no `name:key`")
        assert asked(server.url, SEARCH) == 200


def test_a_file_that_becomes_a_pipe_changes_nothing_until_a_good_one_is_there(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"search:{SEARCH}")
    with serving({"tiny": {"model": TINY}}, keys={"file": str(file)}) as server:
        file.unlink()
        os.mkfifo(file)
        eventually(lambda: told(server.url) == f"api.keys.file {file}: is no file")
        assert asked(server.url, SEARCH) == 200
        file.unlink()
        file.write_text(f"batch:{BATCH}")
        eventually(lambda: asked(server.url, BATCH) == 200)
        assert asked(server.url, SEARCH) == 401
        assert told(server.url) == ""


def test_a_disk_that_hangs_holds_no_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_text(f"search:{SEARCH}")
    answers = threading.Event()

    def hanging(path: Path) -> FileIO:
        answers.wait()
        return open_plain(path)

    with serving({"tiny": {"model": TINY}}, keys={"file": str(file)}) as server:
        monkeypatch.setattr("serve.keys.open_plain", hanging)
        monkeypatch.setattr("serve.keys._PATIENCE_S", 0.1)
        file.write_text(f"batch:{BATCH}")
        try:
            eventually(lambda: "its disk has not answered for" in told(server.url))
            assert [asked(server.url, key) for key in (SEARCH, BATCH)] == [200, 401]
        finally:
            answers.set()
        eventually(lambda: asked(server.url, BATCH) == 200)
        assert told(server.url) == ""


def told(url: str) -> str:
    """Of the keys, to everyone."""
    return str(httpx2.get(f"{url}/ready").raise_for_status().json()["keys"])


def asked(url: str, key: str) -> int:
    """The status of the answer."""
    return httpx2.post(f"{url}/rerank", json=BODY, headers=bearer(key)).status_code


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
        names.add(name_now(keyring, SEARCH))
    writer.join()
    assert names == {"search"}
    assert name_now(keyring, f"{BATCH}299") == "batch"


def test_a_file_that_is_written_while_it_is_read_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"search:{SEARCH}\n")
    keyring = Keyring(KeysConfig(file=str(file)))
    really = os.fstat

    def written_meanwhile(descriptor: int) -> os.stat_result:
        status = really(descriptor)
        file.write_text(f"batch:{BATCH}\nsearch:{SEARCH}\n" + status.st_size * "\n")  # longer each time
        return status

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", written_meanwhile)
        with pytest.raises(ConfigError, match="is being written; try again"):
            Keyring(KeysConfig(file=str(file)))
        file.write_text(f"search:{SEARCH} \n")
        assert name_now(keyring, BATCH) is None
    assert [name_now(keyring, key) for key in (SEARCH, BATCH)] == ["search", "batch"]


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
