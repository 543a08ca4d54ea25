"""Small files that would expand to gigabytes: refused by the option that lets them pass, in little memory."""

import gzip
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.tables.config import TextsConfig
from pipeline.tables.sources import scan
from tests.conftest import ROOT
from tests.tables.conftest import TEXTS, plan, read_all

MIB = 2**20
ROW = dict.fromkeys(TEXTS, "x")


def repeated(path: Path, begin: bytes, middle: bytes, times: int) -> None:
    """A file of many parts, which readers take for one."""
    path.write_bytes(gzip.compress(begin) + gzip.compress(middle) * times)


def zstd(path: Path, begin: bytes, middle: bytes, times: int) -> None:
    begun, whole = (bytes(pa.compress(data, codec="zstd", asbytes=True)) for data in (begin, middle))
    path.write_bytes(begun + whole * times)


def repeats(path: Path, column: str, size: int, rows: int, *, typed: bool = True) -> None:
    """A Parquet file in which one long text stands in every row, by its number in a dictionary.

    typed: Arrow is told that it was one, and keeps it.
    """
    short = pa.array([f"x{row}" for row in range(rows)])
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["a" * size]))
    columns = {name: texts if name == column else short for name in TEXTS}
    pq.write_table(pa.table(columns), path, dictionary_pagesize_limit=2**30, store_schema=typed)


def page(path: Path, size: int) -> None:
    """One page that no compression makes small, among short ones."""
    noise = "".join(map(chr, range(256, 256 + 512))) * (size // 1024)
    rows = [{**ROW, "passage_id": f"p{row}", "passage": noise if row == 5 else "y"} for row in range(9)]
    pq.write_table(pa.Table.from_pylist(rows), path, compression="none")


HEADER = b"query_id,query,passage_id,passage\n"
BOMBS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a.jsonl.gz": (lambda path: repeated(path, b'{"query_id": "', b"a" * MIB, 1024), "max_expansion"),
    "b.jsonl.zst": (lambda path: zstd(path, b'{"query_id": "', b"a" * MIB, 4096), "max_expansion"),
    "c.csv.gz": (lambda path: repeated(path, HEADER + b'q,q,p,"', b"a," * MIB, 1024), "max_expansion"),
    "d.csv.gz": (lambda path: repeated(path, HEADER, (b"a" * 1023 + b"\n") * 1024, 1024), "max_expansion"),
    "e.trec.gz": (lambda path: repeated(path, b"q Q0 ", b"p" * MIB, 1024), "max_expansion"),
    "f.parquet": (lambda path: repeats(path, "passage", 10 * MIB, 20_000), "max_expansion"),
    "g.parquet": (lambda path: repeats(path, "query_id", 10 * MIB, 20_000), "max_expansion"),
    "h.parquet": (lambda path: repeats(path, "passage", 10 * MIB, 20_000, typed=False), "max_expansion"),
    "i.parquet": (lambda path: repeats(path, "query_id", 10 * MIB, 20_000, typed=False), "max_expansion"),
}
MEASURED = r"""
import re, sys
from pathlib import Path
from pipeline.errors import InputError
from tests.tables.conftest import read_all

for name in sys.argv[1:]:
    kind = name.split(".")[1]
    options = {"queries": name, "passages": name} if kind == "trec" else {}
    try:
        read_all(name, kind, shard_pairs=50_000, **options)
        print("read")
    except InputError as error:
        print(error)
print(int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""
"""In the end its own peak in MiB. What getrusage tells includes that of the process which started it."""


def test_bombs_are_refused_in_little_memory(tmp_path: Path) -> None:
    """Of one and of four gigabytes, and of 200; pyarrow alone takes some 150 MiB."""
    for name, (make, _) in BOMBS.items():
        make(tmp_path / name)
        assert (tmp_path / name).stat().st_size < 12 * MIB
    limit = 64 * 2**30  # so that what goes wrong ends
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *(str(tmp_path / name) for name in BOMBS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.returncode == 0, done.stderr
    *told, peak_mib = done.stdout.splitlines()
    for (name, (_, option)), message in zip(BOMBS.items(), told, strict=True):
        assert f"{name}" in message
        assert f"for limits.{option}, which is 200. If it is meant, raise that field" in message
    assert int(peak_mib) < 2000  # a few times limits.max_page_bytes, of 256 MiB


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv", "t.tsv"])
def test_a_line_is_as_long_as_the_limit_lets_it(tmp_path: Path, name: str) -> None:
    long = "a" * 5000
    values = {**ROW, "passage": long}
    text = json.dumps(values) if name == "t.jsonl" else ",".join(TEXTS) + "\n" + ",".join(values.values())
    (tmp_path / name).write_text(text.replace(",", "\t") if name == "t.tsv" else text)
    kind = "jsonl" if name == "t.jsonl" else "csv"
    number = 1 if name == "t.jsonl" else 2
    message = (
        rf"{name} line {number}: it is too long for limits.max_line_bytes, which is 5000\. If it is meant"
    )
    with pytest.raises(InputError, match=message):
        plan(tmp_path / name, kind, limits={"max_line_bytes": 5000})
    good, _ = read_all(tmp_path / name, kind, limits={"max_line_bytes": 5100})
    assert good[0]["passage"] == long


def test_a_record_of_csv_is_as_long_as_a_line(tmp_path: Path) -> None:
    text = HEADER.decode() + 'q,q,p,"' + "a\n" * 3000 + '"\nq,q,p2,x\n'
    (tmp_path / "t.csv").write_text(text)
    good, bad = read_all(tmp_path / "t.csv", "csv", limits={"max_line_bytes": 5000})
    assert [row["passage_id"] for row in good] == ["p2"]
    assert {row["reason"] for row in bad} == {"malformed_row"}


def test_a_deep_document_names_the_option(tmp_path: Path) -> None:
    deep = "[" * 150 + "]" * 150
    (tmp_path / "t.jsonl").write_text(
        json.dumps({**ROW, "more": json.loads(deep), "text": "[{" * 500}) + "\n"
    )
    with pytest.raises(InputError, match=r"t.jsonl line 1: it nests too deep for limits.max_json_depth"):
        plan(tmp_path / "t.jsonl", "jsonl")
    good, _ = read_all(tmp_path / "t.jsonl", "jsonl", limits={"max_json_depth": 151}, kept={"more": "more"})
    assert json.loads(good[0]["kept"]["more"]) == json.loads(deep)
    (tmp_path / "t.jsonl").write_text("[" * 100_000 + '"\\"' * 100_000)
    for read in (lambda: plan(tmp_path / "t.jsonl", "jsonl"), lambda: texts(tmp_path / "t.jsonl")):
        with pytest.raises(InputError, match=r"t.jsonl line 1: it nests too deep"):
            read()


def texts(path: Path) -> Any:
    return scan(TextsConfig(path=str(path), format="jsonl"), "passages", ["_id", "text"])


def test_a_large_page_names_the_option(tmp_path: Path) -> None:
    page(tmp_path / "t.parquet", MIB)
    with pytest.raises(InputError, match=r"t.parquet: column 'passage'.*too large for limits.max_page_bytes"):
        read_all(tmp_path / "t.parquet", "parquet", limits={"max_page_bytes": MIB // 2})
    good, _ = read_all(tmp_path / "t.parquet", "parquet", limits={"max_page_bytes": 2 * MIB})
    assert len(good) == 9


def test_what_expands_as_it_is_meant_to_is_read(tmp_path: Path) -> None:
    """A query's text in each of its rows, by its number in a dictionary; batches are cut to fit."""
    repeats(tmp_path / "t.parquet", "query", 20_000, 2000)
    good, _ = read_all(tmp_path / "t.parquet", "parquet", limits={"max_page_bytes": 100_000})
    assert [len(row["query"]) for row in good] == [20_000] * 2000
    assert [row["passage_id"] for row in good] == [f"x{row}" for row in range(2000)]
