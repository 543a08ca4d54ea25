"""State in JSON that is seen to be whole: its first field, `seal`, is a digest of all the others.

A file that was cut, emptied, changed by a flipped bit or put together of two counts as damaged, never as
another state.
"""

import io
import json
from hashlib import blake2b
from typing import IO, TYPE_CHECKING, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:  # the standard library has it from Python 3.12 on
    from typing_extensions import Buffer

State = TypeVar("State", bound=BaseModel)

_BEGIN, _BETWEEN = b'{"seal":"', b'",'


class Stamp(BaseModel):
    """By which a file's content is known again."""

    model_config = ConfigDict(frozen=True)

    size: int
    """In bytes."""
    digest: str
    """BLAKE2b of 16 bytes, in hex."""

    @classmethod
    def of(cls, data: bytes) -> Self:
        return cls(size=len(data), digest=_digest(data))

    def fits(self, data: bytes) -> bool:
        return self == type(self).of(data)


class StampedStream(io.RawIOBase):
    """Writes to another stream, and knows the stamp of all that was written."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target, self._digest, self._size = target, blake2b(digest_size=16), 0

    def writable(self) -> bool:
        return True

    def write(self, data: "Buffer") -> int:
        self._digest.update(data)
        self._target.write(data)
        self._size += len(memoryview(data))
        return len(memoryview(data))

    def tell(self) -> int:
        return self._size

    @property
    def stamp(self) -> Stamp:
        return Stamp(size=self._size, digest=self._digest.hexdigest())


class DamagedError(Exception):
    """A file of state is not as it was written. Whoever reads it knows what that means, and tells it."""


def sealed(state: BaseModel) -> bytes:
    """The JSON object of `state`, with its seal."""
    fields = state.model_dump_json(indent=2).encode()
    assert fields.startswith(b"{\n"), fields
    return _BEGIN + _digest(fields[1:]).encode() + _BETWEEN + fields[1:]


def unsealed(data: bytes, kind: type[State]) -> State:
    """What `sealed` wrote. Raises DamagedError for anything else."""
    head = len(_BEGIN) + 32
    seal, fields = data[len(_BEGIN) : head], data[head + len(_BETWEEN) :]
    if data[: len(_BEGIN)] != _BEGIN or data[head : head + len(_BETWEEN)] != _BETWEEN:
        raise DamagedError
    if _digest(fields).encode() != seal:
        raise DamagedError
    try:
        return kind.model_validate_json(b"{" + fields)
    except ValidationError as error:
        raise DamagedError from error


def version_of(data: bytes) -> int | None:
    """The `format_version` that some state says it has, whole or not; None where it says none."""
    try:
        version = json.loads(data)["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return version if type(version) is int else None


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()
