"""What the commands share: their arguments, exit statuses, the one `error: ...`, and interrupts."""

import argparse
import sys
from collections.abc import Callable
from enum import IntEnum
from io import TextIOWrapper
from pathlib import Path

from pipeline import log
from pipeline.errors import RayrankError
from pipeline.interruption import Terminated

CHECK_BYTES = "read all files that are done, and make those again that hold other bytes than were written"


class Status(IntEnum):
    """Exit statuses."""

    FINISHED = 0
    DIFFERS = 1
    """`verify`: some scores differ. Python itself exits with 1 for what is no mistake of a user's."""
    MISTAKE = 2
    """In the config, the input or the model: named in one message."""
    REJECTS = 3
    """Finished, but rows were rejected."""
    SHARDS_MISSING = 4
    """Finished, but shards were given up."""
    INTERRUPTED = 130
    TERMINATED = 143
    """By SIGTERM."""


def parser(command: str, description: str | None, *, config: bool = True) -> argparse.ArgumentParser:
    """Of `python -m pipeline.COMMAND`. config: with --config and --set, as `config_file.load` takes them."""
    made = argparse.ArgumentParser(
        prog=f"python -m pipeline.{command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if config:
        add_config(made)
    return made


def add_config(to: argparse._ActionsContainer, *, required: bool = True) -> None:
    """--config and --set, which become `config` and `overrides`. to: a parser, or a group of one."""
    to.add_argument("--config", type=Path, required=required, help="a YAML file, see configs/")
    to.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="override one field",
    )


def run(work: Callable[[], Status], when_interrupted: str = "") -> Status:
    """Do a command's work; a user's mistake becomes one message on standard error, an interrupt another.

    when_interrupted: how the user goes on.
    """
    log.configure()
    if isinstance(sys.stdout, TextIOWrapper):  # a name that the terminal's encoding lacks is no error
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return work()
    except RayrankError as error:
        print(f"error: {error}", file=sys.stderr)
        return Status.MISTAKE
    except KeyboardInterrupt as signal:
        print("; ".join(filter(None, ["interrupted", when_interrupted])), file=sys.stderr)
        return Status.TERMINATED if isinstance(signal, Terminated) else Status.INTERRUPTED
