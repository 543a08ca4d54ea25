"""Standard output and standard error, which may be closed, full, or read by nobody any more."""

import os
import sys
from typing import TextIO

from pipeline import log
from pipeline.errors import OutputError


def open_closed() -> None:
    """Lead to nowhere what this process was started without. Else the next file that is opened takes its
    number, and gets what is written to it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # Python's sign for it
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def show(text: str) -> None:
    """Print what a command was asked for. That its reader is gone, as of `| head`, is no error.

    Raises OutputError where it can't be written.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _lead_to_nowhere(sys.stdout)
    except OSError as error:
        _lead_to_nowhere(sys.stdout)
        raise OutputError(f"standard output: can't be written: {error}") from error


def show_summary(text: str) -> None:
    """`show`, where the work is done and its output holds the summary: the status is the work's."""
    try:
        show(text)
    except OutputError as error:
        log.warning("summary not printed", why=error)


def tell(text: str) -> None:
    """To standard error, if that can be: the exit status tells as well."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _lead_to_nowhere(sys.stderr)


def flush() -> None:
    """At the end. Python would make another exit status of what can't be written then."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _lead_to_nowhere(stream)


def _lead_to_nowhere(stream: TextIO) -> None:
    """For what is still in its buffer, too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
