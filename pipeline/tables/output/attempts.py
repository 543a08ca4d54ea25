"""Shards that kill the process that works on them: counted before the work, so that this ends.

OUTPUT/_manifest/attempts/NAME.STAGE.json   how often a stage began this shard and did not live to end it
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from pydantic import BaseModel, ConfigDict

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
        data = self._output.read(self._file)
        if data is None:
            return 0
        return int(data) if re.fullmatch(rb"\d{1,9}", data) else 1  # damaged: at least one was begun

    @contextmanager
    def counted(self, made: int) -> Iterator[None]:
        """Count one more than were `made` while the block runs: a process that ends it has survived."""
        self._output.write(self._file, str(made + 1).encode())
        try:
            yield
        finally:
            self._output.remove_file(self._file)


def forget_attempts(output: Directory) -> None:
    """What is new, the input or the machine, may do better."""
    output.remove(_ATTEMPTS)
