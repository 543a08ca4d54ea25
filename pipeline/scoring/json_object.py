"""The JSON files of a checkpoint: objects from outside, whose fields have a type once they are read."""

import json
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.plain_file import open_plain

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class JsonObject:
    """One file. A field that is absent, or null, reads as None."""

    def __init__(self, path: Path, fields: dict[str, Any]) -> None:
        self.path = path
        self.fields = fields

    @classmethod
    def read(cls, path: Path) -> "JsonObject":
        """Raises ModelError that names the file, where it is not there or holds no object."""
        fields = read_json(path)
        if not isinstance(fields, dict):
            raise ModelError(f"{path}: needs an object, {{...}}, not {_shown(fields)}")
        return cls(path, fields)

    @classmethod
    def read_optional(cls, path: Path) -> "JsonObject":
        """The same; no fields where there is no such file."""
        return cls.read(path) if path.exists() or path.is_symlink() else cls(path, {})

    def wrong(self, name: str, what: str) -> ModelError:
        """The error of one field."""
        return ModelError(f"{self.path}: {name}: {what}")

    def unfit(self, error: Exception) -> ModelError:
        """The error of a file that transformers does not take."""
        return ModelError(f"{self.path}: transformers does not take it: {' '.join(str(error).split())[:300]}")

    def integer(self, name: str, least: int = 0) -> int | None:
        value = self.fields.get(name)
        # Some libraries write huge lengths as 1e30: whole, though no int to Python.
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise self.wrong(name, f"needs a whole number from {least} on, not {_shown(value)}")
        return value

    def required_integer(self, name: str, least: int = 1) -> int:
        value = self.integer(name, least)
        if value is None:
            raise self.wrong(name, "is missing")
        return value

    def required_number(self, name: str) -> float:
        value = self.fields.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.wrong(name, "is missing" if value is None else f"needs a number, not {_shown(value)}")
        return float(value)

    def flag(self, name: str) -> bool | None:
        value = self.fields.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, f"needs true or false, not {_shown(value)}")
        return value

    def text(self, name: str) -> str | None:
        value = self.fields.get(name)
        if value is not None and not isinstance(value, str):
            raise self.wrong(name, f"needs a text, not {_shown(value)}")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of texts; empty where it is absent."""
        value = self.fields.get(name) or []
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self.wrong(name, f"needs a list of texts, not {_shown(value)}")
        return value

    def object(self, name: str) -> dict[str, Any]:
        """An object; empty where it is absent."""
        value = self.fields.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(name, f"needs an object, {{...}}, not {_shown(value)}")
        return value or {}


def read_json(path: Path) -> Any:
    """What the file holds. Raises ModelError for one that is not there, or no JSON in UTF-8."""
    data = read_bytes(path)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error
    if text.startswith("\ufeff"):
        raise ModelError(f"{path}: begins with a byte order mark; save it as UTF-8 without one")
    try:
        return json.loads(text)
    except ValueError as error:  # also of an integer with thousands of digits
        raise ModelError(f"{path}: not JSON: {error}") from error
    except RecursionError as error:
        raise ModelError(f"{path}: is nested too deep to be a checkpoint's") from error


def read_bytes(path: Path, count: int = -1) -> bytes:
    """The file's first `count` bytes, or all. Raises ModelError where there are none, or an LFS pointer."""
    try:
        with open_plain(path) as stream:
            data = stream.read(count)
    except FileNotFoundError as error:
        raise ModelError(f"no {path.name} in {path.parent}; is it a checkpoint?") from error
    except OSError as error:
        raise ModelError(f"{path}: can't be read: {error.strerror}") from error
    if data.startswith(_LFS_POINTER):
        raise ModelError(f"{path}: is a Git LFS pointer, not the file itself; fetch it with git lfs pull")
    return data


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}..."
