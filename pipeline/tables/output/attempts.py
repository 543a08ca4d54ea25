"""Shards that kill the process that works on them: counted before the work, so that this ends.

OUTPUT/_manifest/attempts/NAME.STAGE.json   how often a stage began this shard and did not live to end it
OUTPUT/_manifest/attempts/load.ACTOR.json   how often this actor began to load its model and did not live to
                                            end it, and what its device had, where it told
"""

import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from pipeline.errors import DeviceError, TemporaryError
from pipeline.tables.input.shards import Shard
from pipeline.tables.output.directory import Directory

_ATTEMPTS = "_manifest/attempts"
MAX_ATTEMPTS = 3
"""More than one: a process dies with its machine as well, through no fault of its shard."""


class Quarantined(BaseModel):
    """A shard that was given up."""

    model_config = ConfigDict(frozen=True)

    name: str
    stage: str
    """The stage that did not survive it."""
    pairs: int
    places: tuple[str, ...]
    """Where its rows stand."""

    @classmethod
    def of(cls, shard: Shard, stage: str) -> "Quarantined":
        return cls(name=shard.name, stage=stage, pairs=shard.pairs, places=shard.places)


class Named(Protocol):
    """A shard, or another piece of work with a name of its own."""

    @property
    def name(self) -> str: ...


class Attempts:
    """Of one stage at one shard."""

    def __init__(self, output: Directory, shard: Named, stage: str) -> None:
        self._output = output
        self._file = f"{_ATTEMPTS}/{shard.name}.{stage}.json"

    def made(self) -> int:
        """How many there were that no process survived, since they were last forgotten."""
        return _number(self._output.read(self._file))

    @contextmanager
    def counted(self, made: int) -> Iterator[None]:
        """Count one more than were `made` while the block runs: a process that ends it has survived.

        One whose device failed has not.
        """
        self._output.write(self._file, str(made + 1).encode())
        has_survived = True
        try:
            yield
        except DeviceError:
            has_survived = False
            raise
        finally:
            if has_survived:
                self._output.remove_file(self._file)


@contextmanager
def loads(output: Directory, actor: str, what: str) -> Iterator[None]:
    """Count the processes of an actor that die while they load `what`.

    actor: a name that stays when its process ends and another takes its place. Each counts for itself, since
    others load at the same time. Raises TemporaryError where MAX_ATTEMPTS have died, perhaps through no fault
    of what they load: processes die with their machines.
    """
    file = f"{_ATTEMPTS}/load.{actor}.json"
    told = output.read(file)
    made = _number(told)
    if made >= MAX_ATTEMPTS:
        output.remove_file(file)  # the next start, on other machines perhaps, may do better
        why = (told or b"").decode(errors="replace").partition("\n")[2]
        other = "other GPUs" if why else "more memory"
        raise TemporaryError(
            f"{made} processes died while they loaded {what}, one after another, the last on"
            f" {platform.node()}: {why or 'out of memory perhaps'}. Start again on machines with {other}"
        )
    output.write(file, str(made + 1).encode())
    has_survived = True
    try:
        yield
    except DeviceError as error:
        has_survived = False
        output.write(file, f"{made + 1}\n{error}".encode())
        raise
    finally:
        if has_survived:
            output.remove_file(file)


def _number(data: bytes | None) -> int:
    """Of attempts, as a file tells it. A damaged file tells that at least one was begun."""
    if data is None:
        return 0
    return int(data.split(b"\n")[0]) if re.match(rb"\d{1,9}(\n|$)", data) else 1


def forget_attempts(output: Directory) -> None:
    """What is new, the input or the machine, may do better."""
    output.remove(_ATTEMPTS)
