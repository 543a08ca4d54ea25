"""What every Parquet file of this project says of itself: which kind of table it is, in which version.

Schema metadata `rayrank`: {"kind": "run", "format_version": 2}. A version grows when a reader of the one
before would misread the file; a column that is added does not make one.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

import pyarrow as pa

from pipeline.errors import InputError

FORMAT_VERSION = 2
"""1: markers did not name the files that they vouch for."""
_KEY = b"rayrank"

Kind = Literal["run", "rejects", "scores", "candidates", "embeddings"]


def stamped(schema: pa.Schema, kind: Kind) -> pa.Schema:
    """The schema of a file of this kind. The same schema gives the same bytes."""
    assert kind in get_args(Kind), kind
    stamp = json.dumps({"kind": kind, "format_version": FORMAT_VERSION}).encode()
    return schema.with_metadata({**(schema.metadata or {}), _KEY: stamp})


def check_version(schema: pa.Schema, file: str, kind: Kind, way_out: str, *, needed: bool) -> None:
    """Raises InputError where a file is of another kind, or of a version that is not read here.

    file: where it lies; way_out: what the reader of the message can do. A file without a stamp is older than
    versions are, or not ours: refused where one is `needed`, since the file is state of our own.
    """
    stamp = _stamp(schema.metadata or {}, file)
    if stamp is None:
        if needed:
            raise InputError(
                f"{file}: has no format version, so an older version of this program wrote it; this one reads"
                f" version {FORMAT_VERSION}. {way_out}"
            )
        return
    version = stamp["format_version"]
    if stamp["kind"] != kind:
        raise InputError(f"{file}: holds {stamp['kind']} (format version {version}), not {kind}. {way_out}")
    if version > FORMAT_VERSION:
        raise InputError(
            f"{file}: is of format version {version}, which a newer version of this program wrote; this one"
            f" reads version {FORMAT_VERSION}. {way_out}"
        )


def _stamp(metadata: Mapping[bytes, bytes], file: str) -> dict[str, Any] | None:
    """What the file says of itself; None where it says nothing. Raises InputError where it makes no sense."""
    if _KEY not in metadata:
        return None
    try:
        stamp = json.loads(metadata[_KEY])
        return {"kind": str(stamp["kind"]), "format_version": int(stamp["format_version"])}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: its metadata {_KEY.decode()!r} is damaged: {metadata[_KEY]!r}") from error
