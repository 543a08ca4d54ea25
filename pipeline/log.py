"""Logs: few lines, `time level event key=value ...`, on standard error."""

import logging
import sys
import time
from typing import Any, TextIO

from pipeline.redaction import redacted

_LOGGER = logging.getLogger("rayrank")
_QUOTED = set(" \"'")
"""With one of these a bare value could pass for several, or for a quoted one."""


def configure() -> None:
    """Write this project's log to standard error, once."""
    if not _LOGGER.handlers:
        formatter = logging.Formatter("%(asctime)sZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(formatter)
        _LOGGER.addHandler(handler)
        _LOGGER.setLevel(logging.INFO)
        _LOGGER.propagate = False


def write_to(stream: TextIO) -> None:
    """Write the log that `configure` began to another stream from now on."""
    for handler in _LOGGER.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(stream)


def info(event: str, **fields: Any) -> None:
    """`info("planned", shards=4)` logs `planned shards=4`."""
    _LOGGER.info(_line(event, fields))


def warning(event: str, **fields: Any) -> None:
    _LOGGER.warning(_line(event, fields))


def error(event: str, **fields: Any) -> None:
    _LOGGER.error(_line(event, fields))


def _line(event: str, fields: dict[str, Any]) -> str:
    """One line, whatever came from outside: no name or path in it can begin a line or a field of its own."""
    told = event if event.isprintable() else repr(event)
    return " ".join([told, *(f"{name}={_quoted(value)}" for name, value in fields.items())])


def _quoted(value: Any) -> str:
    text = f"{value:.1f}" if isinstance(value, float) else redacted(str(value))
    # A line break in a name from outside would begin a line of its own.
    return text if text and text.isprintable() and not _QUOTED & set(text) else repr(text)
