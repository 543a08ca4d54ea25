"""One table of texts, however it is written, is read as the same candidates."""

import bz2
import csv
import gzip
import io
import json
import lzma
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tables.conftest import TEXTS, Row, read_all

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: bytes(pa.compress(data, codec="zstd", asbytes=True)),
}
LINES = {"csv": ".csv", "tsv": ".tsv", "jsonl": ".jsonl", "trec": ".trec"}

words = st.text(st.sampled_from("ab \"',é熊\ufeff7\\"), min_size=1, max_size=8)
texts = words.map(lambda text: f"x{text}x")
many_lines = words.map(lambda text: f"x{text}\n\n\t\ufeff{text}x")
ids = st.sampled_from(["7", "007", "d1", "é", "熊", "x\ufeffy"])


@st.composite
def tables(draw: st.DrawFn, values: st.SearchStrategy[str] = texts) -> list[Row]:
    """Distinct pairs, each query's together; a query and a passage have one text, as in a TREC collection."""
    pairs = sorted(draw(st.sets(st.tuples(ids, ids), min_size=1, max_size=6)))
    queries = {query: draw(values) for query in sorted({query for query, _ in pairs})}
    passages = {passage: draw(values) for passage in sorted({passage for _, passage in pairs})}
    return [
        dict(zip(TEXTS, (query, queries[query], passage, passages[passage]), strict=True))
        for query, passage in pairs
    ]


def as_csv(table: list[Row], end: str) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, TEXTS, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(table)
    return stream.getvalue()


def as_lines(lines: list[str], end: str) -> str:
    return "".join(f"{line}{end}" for line in lines)


def as_tsv(table: list[Row], end: str) -> str:
    return as_lines(["\t".join(TEXTS), *("\t".join(row.values()) for row in table)], end)


def as_jsonl(table: list[Row], end: str) -> str:
    return as_lines([json.dumps(row, ensure_ascii=False) for row in table], end)


def as_trec(table: list[Row], end: str) -> str:
    # A run is read in the order of its scores, which is the table's here.
    scored = zip(table, range(len(table), 0, -1), strict=True)
    return as_lines([f"{row['query_id']} Q0 {row['passage_id']} 1 {score} tag" for row, score in scored], end)


def as_texts(table: list[Row], what: str, end: str) -> str:
    return as_lines(list({f"{row[f'{what}_id']}\t{row[what]}": None for row in table}), end)


def put(path: Path, text: str, *, mark: bool, blank: str, packed: str, linked: bool) -> Path:
    """Write the file, or a link to it in a directory of links."""
    data = (b"\xef\xbb\xbf" if mark else b"") + (blank + text + blank).encode()
    place = path.parent.parent / "blobs" / path.name if linked else path
    place.parent.mkdir(parents=True, exist_ok=True)
    # Several parts, as parallel packers write them.
    pack, middle = PACKERS[packed], len(data) // 2
    Path(f"{place}{packed}").write_bytes(pack(data[:middle]) + pack(data[middle:]))
    target = Path(f"{path}{packed}")
    if linked:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(f"{place}{packed}")
    return target


def check_same(table: list[Row], path: Path, table_format: str, **options: str) -> None:
    good, bad = read_all(path, table_format, shard_pairs=2, **options)
    assert [[row[name] for name in TEXTS] for row in good] == [list(row.values()) for row in table]
    assert bad == []


@pytest.mark.parametrize("table_format", LINES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_text_format_encoding_and_compression(table_format: str, data: st.DataObject) -> None:
    quoted = table_format in ("csv", "jsonl")
    table = data.draw(tables(st.one_of(texts, many_lines) if quoted else texts))
    mark, linked, spaced = (data.draw(st.booleans()) for _ in range(3))
    end, packed = data.draw(st.sampled_from(["\n", "\r\n"])), data.draw(st.sampled_from(list(PACKERS)))
    with tempfile.TemporaryDirectory() as directory:

        def placed(name: str, text: str) -> Path:
            blank = end if spaced else ""
            path = Path(directory) / name
            return put(path, text, mark=mark, blank=blank, packed=packed, linked=linked)

        write = {"csv": as_csv, "tsv": as_tsv, "jsonl": as_jsonl, "trec": as_trec}[table_format]
        path = placed(f"in/part-0{LINES[table_format]}", write(table, end))
        options = {}
        if table_format == "trec":
            options["queries"] = str(placed("texts/queries.tsv", as_texts(table, "query", end)))
            options["passages"] = str(placed("texts/passages.tsv", as_texts(table, "passage", end)))
        kind = "csv" if table_format == "tsv" else table_format
        check_same(table, path.parent if linked else path, kind, **options)


@settings(max_examples=20, deadline=None)
@given(
    table=tables(st.one_of(texts, many_lines)), packed=st.sampled_from(list(PACKERS)), linked=st.booleans()
)
def test_parquet(table: list[Row], packed: str, linked: bool) -> None:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(table), stream, row_group_size=2)
    with tempfile.TemporaryDirectory() as directory:
        blob = Path(directory) / "blobs" / "0123"
        blob.parent.mkdir()
        blob.write_bytes(PACKERS[packed](stream.getvalue()))
        path = Path(directory) / "in" / f"part-0.parquet{packed}"
        path.parent.mkdir()
        if linked:
            path.symlink_to(blob)
        else:
            blob.rename(path)
        check_same(table, path.parent, "parquet")
