"""The outputs in whose own folders a place lies."""

from collections.abc import Iterator
from contextlib import suppress

from pipeline.errors import OutputError
from pipeline.job_record import RECORD
from pipeline.tables.output.directory import Directory
from pipeline.tables.storage import is_glob, locate, place_of, store_errors

_FOLDERS = {
    "_manifest", "candidates", "embeddings", "rejects", "run", "scores", "training_rows", "unmatched",
}  # fmt: skip
"""Whose files readers of an output take for parts of it."""


def outputs_around(url: str) -> list[Directory]:
    """The outermost output around a place, of a glob the outermost ones around what it matches.

    Its parents may be closed to this job: what can't be read counts as no output.
    """
    parts = url.split("/")
    for at, part in enumerate(parts):
        if part in _FOLDERS and (found := list(_outputs("/".join(parts[:at]) or "/"))):
            return found
    return []


def _outputs(url: str) -> Iterator[Directory]:
    """The output at a place, or those that a glob matches."""
    places = [url]
    with suppress(OutputError):
        fs, path = locate(url, OutputError)
        if is_glob(path) and not fs.exists(path):
            with store_errors(OutputError, f"{url}: can't be read"):
                records = fs.glob(f"{path}/{RECORD}")  # and not each match, which may be one of a million
            places = [place_of(fs, name.removesuffix(f"/{RECORD}")) for name in records]
    for place in places:
        with suppress(OutputError):  # of a place that is closed to this job, or that is no folder
            outer = Directory(place)
            if outer.read(RECORD) is not None:
                yield outer
