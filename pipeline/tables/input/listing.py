"""The files of a table: what a path, a directory or a glob means.

Whatever lies in a directory is read, left out by rule, or refused; docs/input.md tells the rules.
"""

import os
from collections.abc import Callable
from itertools import islice
from typing import Any

from pipeline import log
from pipeline.errors import InputError, LateError, NotThereError
from pipeline.tables.input.cleaning import is_unicode
from pipeline.tables.input.compression import check_compression, is_packed_otherwise, without_compression
from pipeline.tables.input.files import SourceFile, open_input, source_file
from pipeline.tables.input.lakehouse import refuse_lakehouse
from pipeline.tables.input.limits import DEFAULT_LIMITS
from pipeline.tables.input.links import (
    AGAIN,
    CIRCLE,
    NOWHERE,
    Info,
    LinksFollowed,
    is_marker,
    located,
    not_there,
)
from pipeline.tables.storage import is_glob, is_web_address, named_by, place_of, store_errors

_MARKER = "a name that begins with _ or ., or ends in .crc, is a marker's"
_ENDING = "ends in none of"
_TEMPORARY = "a temporary file's name"
_EMPTY = "empty"
_TEMPORARY_ENDINGS = (".tmp", ".temp", ".partial", ".inprogress", "._copying_", ".crdownload", ".swp", "~")
_NAMED_IN_LOG = 10
_LOOKED_AT_BYTES = 1 << 16

_PARQUET = ".parquet"
_RECORD, _TABLES = "_manifest/plan.json", ("run", "candidates", "training_rows")
"""By which an output of this program is known, and what of it can be read as a table."""


class NoFilesError(InputError):
    """A path where no file is to be read, though files lie there. `left_out`: one of them."""

    def __init__(self, message: str, left_out: str) -> None:
        super().__init__(message)
        self.args = (message, left_out)  # what unpickling hands to __init__
        self.left_out = left_out


Likeness = Callable[[bytes], bool]
"""Whether a file that begins with these bytes holds rows of the format that is sought."""


def find_files(
    url: str, suffixes: tuple[str, ...], is_like: Likeness, success_file: str | None = None
) -> tuple[list[SourceFile], dict[str, str]]:
    """The files that `url` means, sorted by path, and those left out with the reason.

    A directory, or one that a glob matches, is searched to its depths for files with one of `suffixes`, or
    without any ending, as Hive and Hadoop name them. A single file is taken as it is, and one that a glob
    matches, unless it is a marker or not written to its end. Symbolic links are what they point to; a file
    that they lead to twice is read once. Raises NotThereError where there is nothing, NoFilesError where
    there are other files alone, and InputError for what may hold rows and can't be read: a link that leads
    nowhere or in a circle, a directory that can't be read, another compression, rows under another ending,
    Parquet files of a lakehouse's table.

    success_file: what must stand in the directory; LateError is raised where it does not.
    """
    fs, path = located(url)
    if success_file is not None:  # before the listing, which then has all that was written before it
        _check_success_file(fs, path, url, success_file)
    searched, taken = _listed(fs, path, url)
    searched.pop(f"{path.rstrip('/')}/{success_file}", None)
    _refuse_whole_output(url, searched)
    if _PARQUET in suffixes and not is_web_address(url):  # which has no folders
        refuse_lakehouse(fs, searched, taken)
    infos = searched | {name: (info, None) for name, info in taken.items()}
    hides = is_glob(path) and not is_marker(path)  # of names as in `*.csv`, and not in `.*.csv`
    # A store's client would keep what it listed: a gigabyte for a million files.
    fs.invalidate_cache()
    files: list[SourceFile] = []
    skipped: dict[str, str] = {}
    for name in sorted(infos):
        info, root = infos.pop(name)
        if info["type"] == "directory":
            continue
        place = _readable(place_of(fs, name))
        reason = _reason_to_skip(name, root, info, hides=root is not None or hides)
        if reason is None and root is not None and info["size"]:
            reason = _reason_by_ending(place, suffixes, is_like)
        if reason is None and info["size"] == 0:
            reason = _EMPTY
        if reason is None:
            files.append(source_file(place, info))
        else:
            skipped[place] = reason
    if isinstance(fs, LinksFollowed) and fs.met_links:
        files = _once_each(files, skipped)
    _check_parts(skipped, files, suffixes)
    if not files:
        message = f"no files here{_explain(skipped)}"
        others = [file for file, reason in skipped.items() if reason not in (_MARKER, _TEMPORARY, _EMPTY)]
        raise NoFilesError(f"{url}: {message}", others[0]) if others else not_there(url, message)
    return files, skipped


def but_markers(skipped: dict[str, str]) -> dict[str, str]:
    """Of the files that are left out those that somebody may miss: a marker never holds rows."""
    return {file: reason for file, reason in skipped.items() if reason != _MARKER}


def log_skipped(skipped: dict[str, str], **fields: str) -> None:
    """Tell how many files of an input are left out, and their names. Markers are as they should be."""
    missed = but_markers(skipped)
    if missed:
        log.warning("files left out", **fields, files=len(missed))
    for file, reason in islice(missed.items(), _NAMED_IN_LOG):
        log.warning("file left out", **fields, file=file, reason=reason)


def _check_success_file(fs: Any, path: str, url: str, name: str) -> None:
    try:
        with store_errors(InputError, f"{url}: can't be read"):
            fs.info(f"{path.rstrip('/')}/{name}")
    except (FileNotFoundError, NotADirectoryError) as error:
        if is_glob(path) or fs.isfile(path):
            raise InputError(
                f"{url}: is no directory, in which {name} could stand; leave success_file out"
            ) from error
        with store_errors(InputError, f"{url}: can't be read"):
            is_folder_there = fs.exists(path.rstrip("/"))
        if not is_folder_there:
            lack = not_there(url, "no such directory")
            if not isinstance(lack, NotThereError):
                raise lack from error
            raise LateError(
                f"{url}: the folder is not there (yet), nor {name} in it (success_file)",
                "; start again when it is written, or correct the path",
            ) from error
        raise LateError(
            f"{url}: {name} is not there yet, so that the table is not whole (success_file)",
            "; start again when it is there",
        ) from error


def _listed(fs: Any, path: str, url: str) -> tuple[dict[str, tuple[Info, str]], dict[str, Info]]:
    """What directories hold, each with the directory that was searched, and what was named itself."""
    try:
        with store_errors(InputError, f"{url}: can't be read"):
            if _is_file_of_the_web(url):
                roots, taken = [], {path: fs.info(path)}
            elif fs.isdir(path):
                roots, taken = [path.rstrip("/")], {}
            elif is_glob(path) and not fs.exists(path):
                taken = fs.glob(path, detail=True)
                directories = [name for name, info in taken.items() if info["type"] == "directory"]
                roots = [name.rstrip("/") for name in directories if not is_marker(name)]
                taken = {name: info for name, info in taken.items() if name not in directories}
            else:
                roots, taken = [], {path: fs.info(path)}
            searched = {name: (info, root) for root in roots for name, info in _files_below(fs, root).items()}
    except (FileNotFoundError, NotADirectoryError) as error:
        raise not_there(url, "no such file or directory") from error
    return searched, taken


def _refuse_whole_output(url: str, searched: dict[str, tuple[Info, str]]) -> None:
    """Its tables have other columns: candidates and rejects, embeddings and vectors of words."""
    for root in {root for _, root in searched.values()}:
        if f"{root}/{_RECORD}" in searched:
            held = (name for name in _TABLES if any(each.startswith(f"{root}/{name}/") for each in searched))
            table = next(held, None)
            where = "that has no table" if table is None else f"its table is {root}/{table}/"
            raise InputError(f"{url}: is a whole output; {where}")


def _files_below(fs: Any, root: str) -> dict[str, Info]:
    return fs.search(root) if isinstance(fs, LinksFollowed) else dict(fs.find(root, detail=True))


def _is_file_of_the_web(url: str) -> bool:
    """A web server has no folders, fsspec would download it to find out, and `?` begins a query there."""
    return is_web_address(url) and "." in named_by(url).rpartition("/")[2] and "*" not in url


def _reason_to_skip(name: str, root: str | None, info: Info, *, hides: bool) -> str | None:
    """Of what the file is, whatever its format. root: the directory that was searched, if one was; hides:
    whether markers and files that are being written are not meant.
    """
    above = name.rpartition("/")[0] if root is None else root
    if hides and any(map(is_marker, name.removeprefix(above).split("/"))):
        return _MARKER
    if info["type"] in (NOWHERE, CIRCLE):
        if root is None and is_marker(name):  # what `*` matches too
            return _MARKER
        raise InputError(f"{name}: {info['type']} ({info['destination']}); mend or remove it")
    if info["type"] == AGAIN:
        return AGAIN
    if hides and name.lower().endswith(_TEMPORARY_ENDINGS):
        return _TEMPORARY
    return None if info["type"] == "file" else "is no file"


def _reason_by_ending(place: str, suffixes: tuple[str, ...], is_like: Likeness) -> str | None:
    """Of a file in a directory that was searched; null where it is to be read.

    A name without an ending that holds a number (part-00000, 000000_0) is a part's, and read whatever it
    holds, so that its reader refuses what is none. What else has no ending (README, data) is read where it
    looks like the format. With another ending that is refused: nothing tells whether its rows are meant.
    """
    name = place.rpartition("/")[2].lower()
    stem = without_compression(name)
    is_part = "." not in stem and any(map(str.isdigit, stem))
    if is_part or stem.endswith(suffixes):
        check_compression(place)
        return None
    reason = f"{_ENDING} {', '.join(suffixes)}"
    if is_packed_otherwise(name):
        return reason
    with open_input(place, DEFAULT_LIMITS) as stream:
        holds_rows = is_like(stream.read(_LOOKED_AT_BYTES))
    if "." not in stem:
        return None if holds_rows else f"has no ending, and does not look like {suffixes[0]}"
    if holds_rows:
        raise _doubtful(place, f"looks like {suffixes[0]}, and", suffixes)
    return reason


def _check_parts(skipped: dict[str, str], files: list[SourceFile], suffixes: tuple[str, ...]) -> None:
    """Raises InputError for what is left out as `part-0.parquet.enc` where no `part-0.parquet` is read.

    Where it is, `part-0.parquet.md5` says something about it.
    """
    read: set[str] = set()
    for place, reason in skipped.items():
        name = place.rpartition("/")[2].lower()
        within = [name.find(f"{each}.") + len(each) for each in suffixes if f"{each}." in name]
        if not within or not reason.startswith(_ENDING):
            continue
        read = read or {file.url for file in files}
        beside = [place[: len(place) - len(name) + end] for end in within]
        if read.isdisjoint(beside):
            raise _doubtful(place, "looks like a part of the table, and", suffixes)


def _doubtful(place: str, what: str, suffixes: tuple[str, ...]) -> InputError:
    return InputError(
        f"{place}: {what} ends in none of {', '.join(suffixes)}. Rename it, take it away, or name the"
        " files to read by a glob"
    )


def _readable(place: str) -> str:
    """The same. Raises InputError where it is no text: no record and no rejected row could hold it."""
    if not is_unicode(place):
        raise InputError(f"{place!a}: its path is no UTF-8 text; rename it")
    return place


def _once_each(files: list[SourceFile], skipped: dict[str, str]) -> list[SourceFile]:
    """Without those that are another one again, through links; `skipped` gets them.

    Of several the one that is no link is read. Where their paths name other partitions they are other rows.
    """
    first: dict[tuple[str, str], SourceFile] = {}
    places = [(os.path.realpath(file.url), str(file.partitions)) for file in files]
    for file, place in zip(files, places, strict=True):
        if place not in first or file.url == place[0]:
            first[place] = file
    for file, place in zip(files, places, strict=True):
        if first[place] is not file:
            skipped[file.url] = f"is the same file as {first[place].url}, through a link"
    return [file for file, place in zip(files, places, strict=True) if first[place] is file]


def _explain(skipped: dict[str, str]) -> str:
    if not skipped:
        return ""
    name, reason = next(iter((but_markers(skipped) or skipped).items()))
    return f" but {len(skipped)} left out, such as {name} ({reason})"
