"""What tells that a piece of work is done: written after its data, for which it vouches.

OUTPUT/FOLDER/NAME.json   a marker. Without the files that it names it does not count
"""

from collections.abc import Iterable, Iterator
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

from pipeline import log
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.format_version import FORMAT_VERSION
from pipeline.tables.output.manifest import Listing, Problem, look_into
from pipeline.tables.output.sealed import DamagedError, Stamp, sealed, unsealed

_NAMED_IN_LOG = 10


class Marker(BaseModel):
    """What became of a piece of work: the marker's content, and what the driver hears."""

    model_config = ConfigDict(frozen=True)

    FOLDER: ClassVar[str]
    """Of the markers of this kind."""
    NOUN: ClassVar[str]
    """What people call such a piece of work."""

    format_version: int
    job: str
    """The identity of the job's record: another job's marker is none."""
    name: str
    files: dict[str, Stamp]
    """What the work wrote, by the names in the output."""


Kind = TypeVar("Kind", bound=Marker)


def mark_done(output: Directory, marker: Marker) -> None:
    output.write(_file(type(marker), marker.name), sealed(marker))


def names_done(output: Directory, kind: type[Marker]) -> set[str]:
    """The names of all that has a marker of this kind, whatever it holds."""
    return {name.removesuffix(".json") for name in output.names(kind.FOLDER) if name.endswith(".json")}


def read_marker(output: Directory, kind: type[Kind], job: str, name: str) -> Kind | Problem:
    """The marker, or what is wrong with it."""
    file = _file(kind, name)
    data = output.read(file)
    if data is None:
        return Problem(file, "is missing")
    try:
        marker = unsealed(data, kind)
    except DamagedError:
        return Problem(file, "is damaged")
    own = (marker.job, marker.name, marker.format_version) == (job, name, FORMAT_VERSION)
    return marker if own else Problem(file, f"is the marker of another job or {kind.NOUN}")


def with_its_files(
    output: Directory, listing: Listing, found: Kind | Problem, *, check_bytes: bool
) -> Kind | Problem:
    """A marker whose files are there as it names them, or what is wrong with it or with the first of them.

    listing: of the folders in which its files stand; check_bytes: read them all; else their lengths are
    compared.
    """
    if isinstance(found, Problem):
        return found
    problem = next(listing.problems(found.files), None)
    if problem is None and check_bytes:
        looks = (look_into(output, file, stamp) for file, stamp in found.files.items())
        problem = next(filter(None, looks), None)
    return problem or found


def whole(output: Directory, kind: type[Kind], looked_at: Iterable[Kind | Problem]) -> Iterator[Kind]:
    """Those that count. The log tells which work is done again for damage."""
    damaged = 0
    for found in looked_at:
        if not isinstance(found, Problem):
            yield found
            continue
        damaged += 1
        if damaged <= _NAMED_IN_LOG:
            log.warning(f"{kind.NOUN} is done again", file=f"{output.url}/{found.file}", why=found.what)
    if damaged > _NAMED_IN_LOG:
        log.warning(f"{kind.NOUN}s are done again", **{f"{kind.NOUN}s": damaged})


def _file(kind: type[Marker], name: str) -> str:
    return f"{kind.FOLDER}/{name}.json"
