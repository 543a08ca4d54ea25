"""What the commands share: their arguments, exit statuses, the one `error: ...`, and interrupts."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from io import TextIOWrapper
from pathlib import Path
from threading import Event, Timer
from typing import Any, NoReturn, Protocol, TypeVar

from pipeline import interruption, log, own_ray
from pipeline.config_file import flatten
from pipeline.errors import InputError, LateError, NotThereError, RayrankError, TemporaryError
from pipeline.interruption import Terminated
from pipeline.redaction import redacted
from pipeline.standard_streams import flush, open_closed, show, show_summary, tell

LOADING = "libraries are loading; a machine's first start takes longest"
_SILENT_S = 5.0
_NO_ROOM = ("can't start new thread", "Failed to launch worker thread", "can't allocate memory")
"""Of the messages of Python, pyarrow and torch, where it is no MemoryError."""
_told = Event()


class _Placed(Protocol):
    @property
    def path(self) -> str: ...


class JobConfig(Protocol):
    """A config of a job that writes an output."""

    @property
    def output(self) -> _Placed: ...
    def model_dump(self, *, mode: str) -> dict[str, Any]: ...


Config_contra = TypeVar("Config_contra", bound=JobConfig, contravariant=True)


class Status(IntEnum):
    """Exit statuses."""

    FINISHED = 0
    DIFFERS = 1
    """`verify`: some scores differ. Python itself exits with 1 for what is no mistake of a user's."""
    MISTAKE = 2
    """In the config, the input or the model, named in one message: the same command fails again."""
    REJECTS = 3
    """Finished, but rows were rejected."""
    SHARDS_MISSING = 4
    """Finished, but shards were given up."""
    TRY_AGAIN = 75
    """What the work needs is not there for now: the same command may succeed later. EX_TEMPFAIL of BSD's
    sysexits.h."""
    INTERRUPTED = 130
    TERMINATED = 143
    """By SIGTERM."""


def tell_loading(after_s: float = _SILENT_S) -> Timer:
    """Log that libraries load, once a process, unless the timer that is given is cancelled before."""

    def tell() -> None:
        if _told.is_set():
            return
        _told.set()
        log.configure()
        log.info(LOADING)

    timer = Timer(after_s, tell)
    timer.daemon = True
    timer.start()
    return timer


@contextmanager
def loading() -> Iterator[None]:
    """Around the import of what takes long, torch first of all: up to 20 s from a cold disk.

    A command imports it once its config is read: a mistake there is told at once.
    """
    timer = tell_loading()
    try:
        yield
    finally:
        timer.cancel()


_started = getattr(sys.modules["__main__"], "__spec__", None)
# A command imports this module first, and then all that a config needs: some seconds from a cold disk.
_loading = tell_loading() if _started is not None and _started.name.startswith("pipeline.") else None


def parser(command: str, description: str | None, *, config: bool = True) -> argparse.ArgumentParser:
    """Of `python -m pipeline.COMMAND`. config: with --config and --set, as `config_file.load` takes them."""
    if _loading is not None:
        _loading.cancel()
    made = argparse.ArgumentParser(
        prog=f"python -m pipeline.{command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if config:
        add_config(made)
    return made


def add_job_options(to: argparse.ArgumentParser) -> None:
    """--dry-run and --check-bytes, as `do_job` takes them."""
    to.add_argument("--dry-run", action="store_true", help="print what would be done and stop")
    to.add_argument(
        "--check-bytes",
        action="store_true",
        help="read all files that are done, and make those again that hold other bytes than were written",
    )


def add_config(to: argparse._ActionsContainer, *, required: bool = True) -> None:
    """--config and --set, which become `config` and `overrides`. to: a parser, or a group of one."""
    to.add_argument("--config", type=Path, required=required, help="a YAML file, see configs/")
    to.add_argument(
        "--set",
        dest="overrides",
        action="extend",
        nargs="+",
        default=[],
        metavar="FIELD=VALUE",
        help="override fields",
    )


class Ended(Protocol):
    """What a job that has ended tells."""

    @property
    def rejected(self) -> Mapping[str, int]: ...
    def as_text(self) -> str: ...


class Flow(Protocol[Config_contra]):
    """A room's `flow`."""

    def describe(self, config: Config_contra, /) -> str: ...
    def run(self, config: Config_contra, /, *, check_bytes: bool) -> Ended: ...


def do_job(config: Config_contra, flow: Flow[Config_contra], options: argparse.Namespace) -> Status:
    """Do the job, or tell what it would do. options: of `add_job_options`."""
    if options.dry_run:
        with field_named(config):
            show(redacted(flow.describe(config)))
        return Status.FINISHED
    with field_named(config), missing_when_finished(config.output.path):
        summary = flow.run(config, check_bytes=options.check_bytes)
    show_summary(redacted(summary.as_text()))
    return Status.REJECTS if summary.rejected else Status.FINISHED


@contextmanager
def field_named(config: JobConfig) -> Iterator[None]:
    """Around a job: an error of a path that leads to nothing names the field that holds it."""
    try:
        yield
    except NotThereError as error:
        fields = flatten(config.model_dump(mode="json"))
        field = next((name for name, value in fields.items() if value == error.place), None)
        if field is None:
            raise
        raise InputError(f"{field}: {error.message}") from error


@contextmanager
def missing_when_finished(output_path: str) -> Iterator[None]:
    """Around a job: an input that is not there is late, unless the output is finished. Then it is gone.

    Raises InputError for that: who tries again until a table is written would try for ever, and the output of
    another job would be refused then.
    """
    try:
        yield
    except LateError as error:
        from pipeline import output  # noqa: PLC0415  (file systems come with it)
        from pipeline.tables.output.directory import Directory  # noqa: PLC0415  (file systems come with it)

        finished = Directory(output_path)
        if not output.is_complete(finished):
            raise
        raise InputError(
            f"{error.lack}. {finished.url} is finished, so its input was there, or it is of another job."
            " Without it nothing can be compared or mended, and nothing was done. Put the same input back,"
            f" or leave the output alone: pipeline.status --output {finished.url} tells whether it is whole"
        ) from error


def start_ray_early(output_path: str, max_outage_s: float) -> None:
    """Begin to start the Ray of a job, where that is its own, while libraries load and the job is planned.

    output_path, max_outage_s: the job's. Raises RayrankError where the output can't be read. Only for a
    process that ends with `leave`.
    """
    from pipeline import cluster, output  # noqa: PLC0415  (Ray comes with it: most commands start none)
    from pipeline.tables.outage import wait_out  # noqa: PLC0415  (file systems come with it)
    from pipeline.tables.output.directory import Directory  # noqa: PLC0415  (file systems come with it)

    wait_out(max_outage_s)
    if not output.is_complete(Directory(output_path)):  # a finished job needs none
        cluster.start_early()


def leave(status: int) -> NoReturn:
    """End this process, and at once a Ray of its own, whether it runs or still starts.

    Ray takes seconds to end by itself. A machine that is taken away may not have them. And a signal in them
    would change a finished job's status, and leave processes of Ray.
    """
    if own_ray.has_begun():
        interruption.ignore()
        flush()
        own_ray.end_at_once()
        os._exit(status)
    sys.exit(status)


def run(work: Callable[[], Status], when_interrupted: str = "") -> Status:
    """Do a command's work; an error of ours becomes one message on standard error, an interrupt another.

    when_interrupted: how the user goes on.
    """
    open_closed()
    log.configure()
    if isinstance(sys.stdout, TextIOWrapper):  # a name that the terminal's encoding lacks is no error
        sys.stdout.reconfigure(errors="backslashreplace")
    with interruption.heard():
        try:
            return _done(work)
        except BaseException as error:
            interrupt = interruption.came(error)
            if interrupt is None:
                raise
            interruption.ignore()
            tell("; ".join(filter(None, ["interrupted", when_interrupted])))
            return Status.TERMINATED if issubclass(interrupt, Terminated) else Status.INTERRUPTED
        finally:
            flush()


def _done(work: Callable[[], Status]) -> Status:
    try:
        return work()
    except RayrankError as error:
        interruption.check()
        tell(f"error: {error}")
        return Status.TRY_AGAIN if isinstance(error, TemporaryError) else Status.MISTAKE
    except Exception as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in _NO_ROOM):
            raise
        interruption.check()
        tell(
            f"error: this process got no more memory or threads ({str(error) or 'MemoryError'}): give it more"
            " (ulimit -v, ulimit -u, the limits of its container), or smaller work"
        )
        return Status.MISTAKE
