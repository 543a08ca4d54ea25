"""Deletes rows of a Delta table as Databricks does: vectors beside the data files, which stay as they are."""

import base64
import json
import string
import uuid
import zlib
from pathlib import Path
from typing import Any

import pyroaring

_FEATURE = "deletionVectors"
_MAGIC = 1681511377


def delete_rows(table: str, *deleted: list[int], in_file: bool = False) -> int:
    """Commits a version in which these rows (from 0) of the first, second, ... file by path are deleted.

    in_file: whether a vector is a file of its own or stands in the log. Gives the number of the version.
    """
    log = Path(table) / "_delta_log"
    commits = sorted(log.glob("*.json"))
    past = [json.loads(line) for commit in commits for line in commit.read_text().splitlines()]
    adds = {action["add"]["path"]: action["add"] for action in past if "add" in action}
    protocol = [action["protocol"] for action in past if "protocol" in action][-1]
    features = {
        kind: sorted({*protocol.get(kind, []), _FEATURE}) for kind in ("readerFeatures", "writerFeatures")
    }
    actions: list[dict[str, Any]] = [{"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **features}}]
    for path, positions in zip(sorted(adds), deleted, strict=False):
        old = {key: adds[path][key] for key in ("path", "deletionVector") if key in adds[path]}
        actions.append({"remove": {**old, "deletionTimestamp": 0, "dataChange": True}})
        vector = _in_a_file(table, positions) if in_file else _in_the_log(positions)
        actions.append({"add": {**adds[path], "deletionVector": vector}})
    written = "".join(json.dumps(action) + "\n" for action in actions)
    (log / f"{len(commits):020d}.json").write_text(written)
    return len(commits)


def _in_the_log(positions: list[int]) -> dict[str, Any]:
    bitmap = _bitmap(positions)
    text = _z85(bitmap + b"\0" * (-len(bitmap) % 4))
    return {"storageType": "i", "pathOrInlineDv": text, **_size(bitmap, positions)}


def _in_a_file(table: str, positions: list[int]) -> dict[str, Any]:
    bitmap, name = _bitmap(positions), uuid.uuid4()
    content = b"\1" + len(bitmap).to_bytes(4, "big") + bitmap + zlib.crc32(bitmap).to_bytes(4, "big")
    (Path(table) / f"deletion_vector_{name}.bin").write_bytes(content)
    place = {"storageType": "u", "pathOrInlineDv": _z85(name.bytes), "offset": 1}
    return {**place, **_size(bitmap, positions)}


def _size(bitmap: bytes, positions: list[int]) -> dict[str, int]:
    return {"sizeInBytes": len(bitmap), "cardinality": len(positions)}


def _bitmap(positions: list[int]) -> bytes:
    return _MAGIC.to_bytes(4, "little") + pyroaring.BitMap64(positions).serialize()


def _z85(content: bytes) -> str:
    b85 = string.digits + string.ascii_uppercase + string.ascii_lowercase + "!#$%&()*+-;<=>?@^_`{|}~"
    z85 = string.digits + string.ascii_lowercase + string.ascii_uppercase + ".-:+=^!/*?&<>()[]{}@%$#"
    return base64.b85encode(content).decode().translate(str.maketrans(b85, z85))
