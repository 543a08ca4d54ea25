"""The files of a checkpoint's directory that may be loaded, by this project or by transformers."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.plain_file import open_plain

CODE = ".py"
SUFFIXES = {".json", ".safetensors", ".txt", ".model", ".codes", ".jinja", CODE}


def digest_of(directory: Path) -> str:
    """Of their names and contents. Raises ModelError where one can't be read."""
    digest = hashlib.sha256()
    for file in sorted(_below(directory)):
        try:
            with open_plain(file) as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise ModelError(f"{file}: can't be read: {error.strerror}") from error
        digest.update(f"{file.relative_to(directory)} {content}\n".encode())
    return digest.hexdigest()


def check_plain(directory: Path) -> None:
    """Raises ModelError for a named pipe or a device among them, on which the libraries would hang."""
    for file in _below(directory):
        if file.exists() and not file.is_file():
            raise ModelError(f"{file}: can't be read: is no file")


def _below(directory: Path) -> Iterator[Path]:
    """Links are followed, as a hub's cache has them, none in a circle."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(directory, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(folder, name) for name in names if Path(name).suffix in SUFFIXES)
