"""The outputs in whose own folders a place lies."""

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
        if part in _FOLDERS:
            with suppress(OutputError):
                outers = [Directory(place) for place in _matched("/".join(parts[:at]) or "/")]
                if found := [outer for outer in outers if outer.read(RECORD) is not None]:
                    return found
    return []


def _matched(url: str) -> list[str]:
    """What a glob matches; any other place is itself."""
    fs, path = locate(url, OutputError)
    if not is_glob(path) or fs.exists(path):
        return [url]
    with store_errors(OutputError, f"{url}: can't be read"):
        return [place_of(fs, name) for name in fs.glob(path)]
