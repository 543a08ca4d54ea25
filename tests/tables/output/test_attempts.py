"""Processes that die of their work: counted, until somebody survives it or it is given up."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import pytest

from pipeline.errors import DeviceError, ModelError, TemporaryError
from pipeline.tables.output.attempts import MAX_ATTEMPTS, Attempts, loads
from pipeline.tables.output.directory import Directory

SHARD = SimpleNamespace(name="shard-000001")


@pytest.fixture
def output(tmp_path: Path) -> Directory:
    return Directory(str(tmp_path / "out"))


def files(output: Directory) -> dict[str, bytes | None]:
    folder = "_manifest/attempts"
    return {name: output.read(f"{folder}/{name}") for name in output.names(folder)}


def fail(output: Directory, error: Exception, actor: str = "a") -> None:
    with loads(output, actor, "the model"):
        raise error


def test_many_actors_load_at_once(output: Directory) -> None:
    """More than may die, and none has loaded before the last begins."""
    together = Barrier(2 * MAX_ATTEMPTS)

    def load(actor: int) -> None:
        with loads(output, str(actor), "the model"):
            together.wait(timeout=60)

    with ThreadPoolExecutor(together.parties) as pool:
        list(pool.map(load, range(together.parties)))
    assert files(output) == {}


def test_an_actor_whose_processes_die_gives_up(output: Directory) -> None:
    begun = [loads(output, "a", "the model") for _ in range(MAX_ATTEMPTS)]
    for number, dying in enumerate(begun, start=1):
        dying.__enter__()  # and its process is gone
        assert files(output) == {"load.a.json": str(number).encode()}
        with loads(output, "b", "the model"):  # another one's success is no help to it
            pass
    with pytest.raises(
        TemporaryError, match=r"^3 processes died .* the model, .*: out of memory perhaps\. Start"
    ):
        fail(output, AssertionError())
    assert files(output) == {}, "the next start may do better"


def test_what_the_device_had_is_told(output: Directory) -> None:
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(DeviceError):
            fail(output, DeviceError("the device cuda failed: ECC"))
    with pytest.raises(
        TemporaryError, match=r": the device cuda failed: ECC\. Start again on machines with other"
    ):
        fail(output, AssertionError())


def test_who_tells_a_mistake_has_survived(output: Directory) -> None:
    for _ in range(MAX_ATTEMPTS + 1):
        with pytest.raises(ModelError):
            fail(output, ModelError("no weights"))
    assert files(output) == {}


def test_a_device_that_fails_counts_as_a_death(output: Directory) -> None:
    attempts = Attempts(output, SHARD, "score")
    for error, counted in ((ModelError("no"), 0), (DeviceError("gone"), 1)):
        with pytest.raises(type(error)), attempts.counted(attempts.made()):
            raise error
        assert attempts.made() == counted
