"""The right of one driver to write an output, so that two starts at once don't do the same work.

OUTPUT/_manifest/driver/NNNNNN.json: a file a start, made by a write that fails where the file exists. The
highest number has the right; its owner writes the file again every few seconds, with how far it is. Another
start takes the next number once that heartbeat has stopped, or at once where it can see that the process is
gone.
"""

import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline import interruption, log
from pipeline.errors import OutputError, RayrankError, TemporaryError
from pipeline.redaction import redacted
from pipeline.tables.outage import wait_no_more
from pipeline.tables.output.directory import Directory

_DRIVERS = "_manifest/driver"
HEARTBEAT_S = 5.0
_MISSED_HEARTBEATS = 6
"""Heartbeats that may fail to come before a driver counts as dead: a store may be slow for a while."""
_CLOCKS_DIFFER_S = 3600.0
"""By more than this no two clocks are taken to differ."""


State = Literal["running", "finished", "interrupted", "failed"]


class Heartbeat(BaseModel):
    """What a driver says of itself."""

    model_config = ConfigDict(frozen=True)

    state: State
    number: int
    """Of the heartbeat; grows while the driver lives."""
    host: str
    """As `_host` tells it, by which process numbers are compared."""
    pid: int
    started: datetime
    time: datetime
    """When this was written, by the driver's clock."""
    shards: int
    shards_done: int
    pairs_done: int
    """Of this start; `shards` and `shards_done` are of the whole job."""
    shards_done_before: int = 0
    """Of `shards_done`, those of earlier starts."""
    message: str = ""

    @property
    def machine(self) -> str:
        """Its name alone, for people."""
        return self.host.partition(" ")[0]


class Lease:
    """The driver's own: counts what is done, and tells it with every heartbeat."""

    def __init__(self, output: Directory, file: str, first: Heartbeat) -> None:
        self._output, self._file, self._heartbeat = output, file, first
        self.lost: RayrankError | None = None
        """Why the right is gone, where it is."""
        self._change = Lock()  # the driver counts, the thread sends heartbeats
        self._stop = Event()
        self._thread = Thread(target=self._keep, daemon=True)

    def begins_with(self, shards_done: int) -> None:
        """So many need no work: what was counted before may be damaged."""
        with self._change:
            begun = {"shards_done": shards_done, "shards_done_before": shards_done}
            self._heartbeat = self._heartbeat.model_copy(update=begun)

    def add(self, pairs: int) -> None:
        """A shard is done. Raises TemporaryError where another start has taken over, OutputError where the
        output is gone.
        """
        interruption.check()
        if self.lost is not None:
            raise self.lost
        with self._change:
            done = {
                "shards_done": self._heartbeat.shards_done + 1,
                "pairs_done": self._heartbeat.pairs_done + pairs,
            }
            self._heartbeat = self._heartbeat.model_copy(update=done)

    def _keep(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                self.lost = self._why_lost()
                if self.lost is not None:
                    return
                self._write("running")
            except RayrankError as error:
                log.warning("heartbeat failed", why=error)

    def _why_lost(self) -> RayrankError | None:
        files = _files(self._output)
        if files and files[-1] > self._file:
            return TemporaryError(
                f"{self._output.url}: another start has taken over, since this one sent no heartbeat for"
                f" {HEARTBEAT_S * _MISSED_HEARTBEATS:.0f} s"
            )
        if self._file not in files:
            return OutputError(
                f"{self._output.url}: the output was removed while the job ran ({_DRIVERS}/{self._file} is"
                " gone). Remove what is left of the directory and start again"
            )
        return None

    def _write(self, state: State, message: str = "") -> None:
        news = {"state": state, "time": datetime.now(UTC), "message": message}
        with self._change:
            self._heartbeat = self._heartbeat.model_copy(
                update={**news, "number": self._heartbeat.number + 1}
            )
            told = self._heartbeat.model_dump_json(indent=2)
        self._output.write(f"{_DRIVERS}/{self._file}", told.encode())

    def start(self) -> None:
        self._thread.start()

    def end(self, state: State, message: str = "") -> None:
        """The last word, where there is still a place for it."""
        self._stop.set()
        self._thread.join()
        self.lost = self.lost or self._why_lost()
        if self.lost is None:
            self._write(state, message)


@contextmanager
def lease(output: Directory, shards: int, shards_done: int) -> Iterator[Lease]:
    """Hold the right to write `output`. Raises TemporaryError where another driver holds it."""
    names = _files(output)
    if names:
        _wait_until_free(output, names[-1])
    file = f"{int(names[-1].removesuffix('.json')) + 1 if names else 1:06d}.json"
    now = datetime.now(UTC)
    first = Heartbeat(
        state="running",
        number=0,
        host=_host(),
        pid=os.getpid(),
        started=now,
        time=now,
        shards=shards,
        shards_done=shards_done,
        shards_done_before=shards_done,
        pairs_done=0,
    )
    if not output.create(f"{_DRIVERS}/{file}", first.model_dump_json(indent=2).encode()):
        raise TemporaryError(f"{output.url}: another start has just begun to write here")
    held = Lease(output, file, first)
    held.start()
    try:
        yield held
    except BaseException as error:
        # It may be the store's, which was waited for; who interrupts won't wait for a store.
        wait_no_more()
        if isinstance(error, Exception) and interruption.came() is None:
            _try_to_end(held, "failed", redacted(str(error)))
            if held.lost is not None:  # the error may come of what the other start has done
                raise held.lost from error
        else:
            _try_to_end(held, "interrupted")
        raise
    held.end("finished")


def _try_to_end(held: Lease, state: State, message: str = "") -> None:
    """What ended the job is the error to tell, not that its last word was not heard."""
    try:
        held.end(state, message)
    except RayrankError as error:
        log.warning("last heartbeat failed", why=error)


def last_heartbeat(output: Directory) -> Heartbeat | None:
    """The last word of the last driver; None where there was none, or where it is damaged."""
    names = _files(output)
    return _heartbeat(output.read(f"{_DRIVERS}/{names[-1]}")) if names else None


def _heartbeat(data: bytes | None) -> Heartbeat | None:
    try:
        return Heartbeat.model_validate_json(data or b"")
    except ValidationError:
        return None


def is_silent(output: Directory, heartbeat: Heartbeat, now: datetime) -> bool:
    """Whether the driver of the last heartbeat, which says it runs, counts as dead.

    Where the time alone says so, a second look decides: the clocks of two machines may differ by minutes.
    """
    silent_s = (now - heartbeat.time).total_seconds()
    if abs(silent_s) <= HEARTBEAT_S * _MISSED_HEARTBEATS:
        return False
    if silent_s > _CLOCKS_DIFFER_S:
        return True
    time.sleep(2 * HEARTBEAT_S)
    return last_heartbeat(output) == heartbeat


def is_being_written(output: Directory) -> bool:
    """Whether a driver is at work there now, as far as its heartbeat tells."""
    heartbeat = last_heartbeat(output)
    if heartbeat is None or heartbeat.state != "running":
        return False
    return not is_silent(output, heartbeat, datetime.now(UTC))


def _files(output: Directory) -> list[str]:
    return sorted(name for name in output.names(_DRIVERS) if re.fullmatch(r"\d{6,}\.json", name))


def _wait_until_free(output: Directory, file: str) -> None:
    """Return once the driver of `file` is seen not to write any more. Raises TemporaryError where it does.

    A heartbeat that is damaged may be that of a driver which lives, and writes it again.
    """
    data = output.read(f"{_DRIVERS}/{file}")
    first = _heartbeat(data)
    if data is None or (first is not None and (first.state != "running" or _is_gone(first))):
        return
    who = {"heartbeat": "damaged"} if first is None else {"host": first.machine, "pid": first.pid}
    log.info("waiting", why="another start may still be writing here", **who)
    for _ in range(_MISSED_HEARTBEATS):
        time.sleep(HEARTBEAT_S)
        now = output.read(f"{_DRIVERS}/{file}")
        heartbeat = _heartbeat(now)
        if now is None or (heartbeat is not None and heartbeat.state != "running"):
            return
        if now != data and heartbeat is not None:
            raise TemporaryError(
                f"{output.url}: another start is writing here: process {heartbeat.pid} on"
                f" {heartbeat.machine}, since {heartbeat.started:%Y-%m-%d %H:%M:%S} UTC. Wait for it, stop"
                " it, or take another output.path"
            )


def _is_gone(heartbeat: Heartbeat) -> bool:
    """Whether the process can be seen from here and is not there."""
    if heartbeat.host != _host() or not Path("/proc/self").exists():
        return False
    try:
        os.kill(heartbeat.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # another account's
        return False
    try:
        # The state stands behind the name, which is in brackets and may hold any sign.
        state = Path(f"/proc/{heartbeat.pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # /proc may show each account its own processes alone
        return False
    return state == "Z"  # killed, and not yet asked for by its parent


def _host() -> str:
    """The machine, with the container in which process numbers mean something."""
    namespace = Path("/proc/self/ns/pid")
    inside = f" {namespace.readlink()}" if namespace.is_symlink() else ""
    return platform.node() + inside
