"""A file system and a path from a URL, and every store's errors told as ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any, cast

import fsspec
import pyarrow as pa
import pyarrow.fs
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import InputError, RayrankError, TemporaryError
from pipeline.tables.outage import PatientFileSystem, is_outage

_BUCKETS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"}
"""Stores whose paths begin with a bucket, which has to be made before anything is written to it."""
_ARCHIVES = ("zip:", "tar:", "libarchive:")


def locate(url: str, error_class: type[RayrankError]) -> tuple[Any, str]:
    """What fsspec makes of it, waiting out a store's outages.

    Raises `error_class` where no file system fits, TemporaryError where the store can't be reached.
    """
    fs, path = _located(url, error_class)
    return (fs if isinstance(fs, LocalFileSystem) else PatientFileSystem(fs)), path


def _located(url: str, error_class: type[RayrankError]) -> tuple[Any, str]:
    if url.startswith(_ARCHIVES):
        raise error_class(
            f"{url}: tables inside of archives are neither read nor written: unpack the archive, and name the"
            " folder or file that was in it"
        )
    try:
        if "::" in url and not _is_chain(url):
            return _of_one(url)
        return cast("tuple[Any, str]", fsspec.core.url_to_fs(url))
    except ImportError as missing:
        # fsspec knows the protocol but its package is not installed; pyarrow carries some of them itself.
        try:
            filesystem, path = pyarrow.fs.FileSystem.from_uri(url)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise error_class(f"{url}: {missing}") from missing
        except OSError as error:
            raise class_for(error, error_class)(f"{url}: can't be reached: {error}") from error
        return ArrowFSWrapper(filesystem), path
    except ValueError as error:
        raise error_class(f"{url}: {error}") from error
    except Exception as error:  # what a file system lacks to be made: Java, a host, an archive
        why = str(error) or type(error).__name__
        raise class_for(error, error_class)(f"{url}: its file system can't be used: {why}") from error


def _is_chain(url: str) -> bool:
    """Whether file systems are chained by `::`, as in simplecache::/a.csv, or it is part of a name."""
    *outer, _ = url.split("::")
    return all(_reads_through_another(link.partition("://")[0]) for link in outer)


def _reads_through_another(protocol: str) -> bool:
    """Whether it is one of fsspec's archives or caches. It hands `target_protocol` to these."""
    try:
        kind: type = fsspec.get_filesystem_class(protocol)
    except (ImportError, ValueError):
        return False
    # Some take what their base class does.
    makers = [vars(each)["__init__"] for each in kind.__mro__[:-1] if "__init__" in vars(each)]
    return any("target_protocol" in signature(each).parameters for each in makers)


def _of_one(url: str) -> tuple[Any, str]:
    """As url_to_fs, which would take what stands before a `::` for a file system of its own."""
    protocol, separator, _ = url.partition("://")
    kind: Any = fsspec.get_filesystem_class(protocol) if separator else LocalFileSystem
    return kind(**kind._get_kwargs_from_urls(url)), kind._strip_protocol(url)


def place_of(fs: Any, path: str) -> str:
    """What leads to the same place from every process: a plain absolute path where it is local."""
    return path if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path))


def speaks(fs: Any, protocols: set[str]) -> bool:
    """Whether it is a file system of one of these."""
    spoken = fs.protocol
    return not protocols.isdisjoint([spoken] if isinstance(spoken, str) else spoken)


def bucket_lacking(url: str, error_class: type[RayrankError]) -> str | None:
    """What to say where the bucket of a URL is not there; None where it is, or where that can't be told.

    `error_class`: as of `locate`, which is asked. Raises TemporaryError where the store does not answer.
    """
    fs, path = locate(url, error_class)
    bucket = path.strip("/").partition("/")[0]
    if not speaks(fs, _BUCKETS):
        return None
    try:
        # Not `exists`, for which a bucket that this account may not ask for is none.
        with store_errors(error_class, url):
            fs.info(bucket)
    except FileNotFoundError:
        return f"{url}: there is no bucket {bucket}: correct the path, or make the bucket"
    except TemporaryError:
        raise
    except RayrankError:  # forbidden, perhaps
        return None
    return None


def named_by(url: str) -> str:
    """The part of a URL that names a file: a web address without its query, which may be a signature."""
    return url.partition("?")[0] if is_web_address(url) else url


def is_web_address(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def is_glob(path: str) -> bool:
    """Whether a path may stand for several files."""
    return any(sign in path for sign in "*?[")


def absolute(url: str) -> str:
    """The same place, for a process that was started in another directory."""
    fs, path = locate(url, InputError)
    return place_of(fs, path)


@contextmanager
def store_errors(error_class: type[RayrankError], what: str) -> Iterator[None]:
    """Every store's client has errors of its own (credentials, endpoints, ...): tell them as `error_class`.

    One of a store that may answer later is a TemporaryError. That a file is not there goes through, for the
    caller to say what it means.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, RayrankError):
        raise
    except Exception as error:
        raise class_for(error, error_class)(f"{what}: {str(error) or type(error).__name__}") from error


def class_for(error: Exception, otherwise: type[RayrankError]) -> type[RayrankError]:
    """Which error of ours an error of a store's client is told as: TemporaryError if it may answer later."""
    return TemporaryError if is_outage(error) else otherwise
