"""API keys: who asks, and how much they may."""

import asyncio
import hashlib
import hmac
import ipaddress
import math
import os
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from threading import Thread
from typing import Literal

from pipeline import log
from pipeline.errors import ConfigError
from pipeline.plain_file import open_plain
from serve.config import ApiConfig, KeysConfig
from serve.problems import Problem
from serve.window import Window

_SHORTEST = 16
_AGAIN_S = 5.0
_LOOK_S = 0.5
"""Between two looks at the file."""
_PATIENCE_S = 10.0
"""With a look at the file; one on a network may take a while."""
_MOST_BYTES = 1 << 24
_SETTLES_NS = 1_000_000_000
ANONYMOUS = "anonymous"


class Keyring:
    """The keys of a KeysConfig, by name."""

    def __init__(self, config: KeysConfig, environment: Mapping[str, str] = os.environ) -> None:
        """Raises ConfigError where there are none or one is malformed, and where they can't be read."""
        self._config = config
        self._environment = environment
        self._seen: tuple[int, int, int] | None = None
        self._digests: dict[str, bytes] = {}
        self._problem = ""
        self._looks_since: float | None = None
        self._read()

    @property
    def problem(self) -> str:
        """Why the file as it is now is not read, while the keys that it had before hold; without secrets."""
        since = self._looks_since
        if since is not None and (s := time.monotonic() - since) > _PATIENCE_S:
            return f"api.keys.file {self._config.file}: its disk has not answered for {s:.0f} s"
        return self._problem

    def watch(self) -> None:
        """From now on `read_again` twice a second, in a thread: a disk that hangs shall hold no request."""
        if self._config.file is not None:
            Thread(target=_watch, args=(weakref.ref(self),), name="API keys", daemon=True).start()

    def name_of(self, key: str) -> str | None:
        """Whose key it is. Takes as long whichever it is, and if it is none."""
        digest = _digest(key)
        owner = None
        for name, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                owner = name
        return owner

    def read_again(self) -> None:
        """The file, if it changed. One that has become unreadable or malformed is told as an error, and the
        keys before hold: a slip in it shall lock nobody out.
        """
        if self._config.file is None:
            return
        self._looks_since = time.monotonic()
        self._look(Path(self._config.file))
        self._looks_since = None

    def _look(self, path: Path) -> None:
        identity = _identity(path)
        if identity is not None and identity == self._seen:
            return
        try:
            self._read()
        except ConfigError as error:
            self._seen = _settled(path)
            # A file that is being written is not told yet.
            if (identity is None or self._seen is not None) and str(error) != self._problem:
                self._problem = str(error)
                log.error("the file of API keys is not read, the keys before hold", reason=self._problem)
        else:
            if self._problem:
                log.info("the file of API keys is read again", file=path)
            self._problem = ""

    def _read(self) -> None:
        place, text = self._text()
        digests: dict[str, bytes] = {}
        for number, entry in enumerate(filter(None, map(str.strip, text.replace(",", "\n").splitlines())), 1):
            name, colon, key = (part.strip() for part in entry.partition(":"))
            if not colon or not name:
                raise ConfigError(f"{place}: entry {number} is no `name:key`")
            if len(key) < _SHORTEST:
                raise ConfigError(
                    f"{place}: entry {number}: the key{_named(name)} is too short; a key has at least"
                    f" {_SHORTEST} characters (`openssl rand -hex 24` makes one)"
                )
            if not (key.isascii() and key.isprintable()):
                raise ConfigError(
                    f"{place}: entry {number}: the key{_named(name)} has other characters than printable"
                    " ASCII, which an HTTP header can't carry"
                )
            if name in digests:
                raise ConfigError(
                    f"{place}: entry {number}: there is a key{_named(name) or ' of this name'} already"
                )
            digests[name] = _digest(key)
        if not digests:
            raise ConfigError(f"{place}: no API keys there; write `keys: none` to ask for none")
        self._digests = digests

    def _text(self) -> tuple[str, str]:
        if self._config.file is None:
            name = self._config.env or ""
            if name not in self._environment:
                raise ConfigError(
                    f"api.keys.env {name}: is not set here. Set it where Ray starts, on each machine, or in"
                    f" the application's runtime_env: {{env_vars: {{{name}: ...}}}}"
                )
            return f"api.keys.env {name}", self._environment[name]
        path = Path(self._config.file)
        self._seen = _settled(path)
        try:
            return f"api.keys.file {path}", _content(path).decode("utf-8-sig")
        except OSError as error:
            raise ConfigError(f"api.keys.file {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"api.keys.file {path}: is no text in UTF-8") from error


def _watch(watched: weakref.ref[Keyring]) -> None:
    """As long as anyone has the keys."""
    while (keyring := watched()) is not None:
        keyring.read_again()
        del keyring
        time.sleep(_LOOK_S)


def _named(name: str) -> str:
    """For messages. A name as long as a key may be one that stands in the wrong place."""
    return f" named {name!r}" if len(name) < _SHORTEST else ""


async def until_readable(config: KeysConfig | Literal["none"]) -> None:
    """Wait for a file of keys that this machine lacks, while another version of the API serves.

    Raises ConfigError for a variable. An API that ended for a file would be given up after some tries, and
    the same config, deployed again when the file is mended, would change nothing.
    """
    while config != "none":
        try:
            Keyring(config)
        except ConfigError as error:
            if config.file is None:
                raise
            log.warning("waits for its API keys", reason=str(error))
            await asyncio.sleep(_AGAIN_S)
        else:
            return


class Gate:
    """Who may ask, and how much."""

    def __init__(self, config: ApiConfig) -> None:
        """Raises ConfigError for keys that can't be read."""
        self._config = config
        self._keyring = None if config.keys == "none" else Keyring(config.keys)
        if self._keyring is not None:
            self._keyring.watch()
        self._windows: dict[tuple[str, str], Window] = {}

    def keys_problem(self) -> str:
        """Why the keys that are used are not those of the file as it is now; empty where they are."""
        return "" if self._keyring is None else self._keyring.problem

    def admit(self, authorization: str | None, client: str | None) -> str:
        """The name of who asks. Raises Problem."""
        if self._keyring is None:
            if not self._config.anyone and not _is_loopback(client):
                raise Problem(
                    "forbidden",
                    "no API keys are configured, so only clients on this machine are served",
                )
            return ANONYMOUS
        if authorization is None:
            raise Problem("no_key", "needs an API key: `Authorization: Bearer KEY`")
        scheme, _, key = authorization.partition(" ")
        name = self._keyring.name_of(key.strip()) if scheme.lower() == "bearer" else None
        if name is None:
            raise Problem(
                "unauthorized",
                "needs a valid API key: `Authorization: Bearer KEY`, with the part after the colon of the"
                " server's `name:key`",
            )
        return name

    def count_request(self, name: str) -> None:
        """Before its body is read. Raises Problem where the key has had its requests."""
        self._count(name, "requests", 1)

    def count_pairs(self, name: str, pairs: int) -> None:
        """Raises Problem where the key has had its pairs, or may never have as many."""
        self._count(name, "pairs", pairs)

    def _count(self, name: str, unit: Literal["requests", "pairs"], amount: int) -> None:
        limits = self._config.limits_of.get(name, self._config.limits)
        limit = limits.requests_per_minute if unit == "requests" else limits.pairs_per_minute
        if limit is None:
            return
        window = self._windows.setdefault((name, unit), Window(limit))
        if amount > limit:
            raise Problem(
                "too_many",
                f"{amount} pairs are more than the {limit} that this key may ask for in a"
                " minute (pairs_per_minute of the server's config): send fewer at a time",
            )
        wait_s = window.wait_s(amount)
        if wait_s > 0:
            message = f"rate limit of {limit} {unit} a minute exceeded; retry in {math.ceil(wait_s)} s"
            raise Problem("rate_limit", message, retry_after_s=wait_s)
        window.take(amount)


def _digest(key: str) -> bytes:
    """Of equal length for every key, so that comparing tells nothing of theirs."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Its size, too: a file that was read half written may end with the time that it had then."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _content(path: Path) -> bytes:
    """Read in one call: where it is written meanwhile, two may give the parts of two versions."""
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _MOST_BYTES:
            raise ConfigError(f"api.keys.file {path}: has {size:,} bytes, which no file of keys has")
        content = file.read(size + 1)
    if len(content) != size:
        raise ConfigError(f"api.keys.file {path}: is being written; try again")
    return content


def _settled(path: Path) -> tuple[int, int, int] | None:
    """Its identity; None where it was written just now: a clock's tick has room for another write."""
    identity = _identity(path)
    if identity is None or abs(time.time_ns() - identity[0]) < _SETTLES_NS:
        return None
    return identity


def _is_loopback(client: str | None) -> bool:
    try:
        address = ipaddress.ip_address(client or "")
        # An IPv6 socket tells of IPv4 clients so.
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback
    except ValueError:
        return False
