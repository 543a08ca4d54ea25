import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import InputError
from pipeline.tables.input.files import open_input
from pipeline.tables.input.limits import DEFAULT_LIMITS

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: bytes(pa.compress(data, codec="zstd", asbytes=True)),
}
CONTENT = b"".join(b"line %d\n" % number for number in range(50_000))

every_compression = pytest.mark.parametrize("ending", PACKERS)


@every_compression
def test_several_parts_are_one_file_with_places(tmp_path: Path, ending: str) -> None:
    pack, path = PACKERS[ending], tmp_path / f"t{ending}"
    path.write_bytes(pack(CONTENT[:100_000]) + pack(b"") + pack(CONTENT[100_000:]))
    with open_input(str(path), DEFAULT_LIMITS) as stream:
        assert stream.read() == CONTENT
        for place in (200_000, 5, 99_999, len(CONTENT) + 1):
            stream.seek(place)
            assert stream.readline() == CONTENT[place : CONTENT.find(b"\n", place) + 1]
        assert stream.seek(0, 2) == len(CONTENT)


@every_compression
@pytest.mark.parametrize(
    "spoil",
    [
        lambda parts: (parts * 2)[:-3],
        lambda parts: parts[: len(parts) // 2],
        lambda parts: parts + b"no part of its kind",
        lambda parts: b"none of its kind",
    ],
    ids=["second cut", "first cut", "trailing", "other"],
)
def test_cut_and_corrupt_files_are_named(
    tmp_path: Path, ending: str, spoil: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / f"t{ending}"
    path.write_bytes(spoil(PACKERS[ending](CONTENT)))
    with (
        pytest.raises(InputError, match=rf"t{ending}: can't be read: \w"),
        open_input(str(path), DEFAULT_LIMITS) as stream,
    ):
        stream.read()
