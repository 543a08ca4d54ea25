import csv
import gzip
import io
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.tables import sources
from pipeline.tables.config import TextsConfig
from tests.tables.conftest import plan


def read(path: Path) -> list[tuple[str, str]]:
    config = TextsConfig.model_validate({"path": str(path), "format": "tsv", "header": ["_id", "text"]})
    source = sources.scan(config, "passages", ["_id", "text"])
    tables = [
        rows.columns for part in source.file_ranges for rows in sources.read(part, source, ["_id", "text"])
    ]
    return [(row["_id"], row["text"]) for table in tables for row in table.to_pylist()]


def test_files_that_were_joined_with_their_marks_have_the_same_ids(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_bytes(b"\xef\xbb\xbfd1\tone\n\xef\xbb\xbfd2\ttwo\n")
    assert read(path) == [("d1", "one"), ("d2", "two")]


@pytest.mark.parametrize("length", [5, 70_000, 200_000])
def test_a_carriage_return_in_a_long_line_ends_none(tmp_path: Path, length: int) -> None:
    path, text = tmp_path / "t.tsv", "a\rb" + "x" * length
    path.write_bytes(f"d1\t{text}\nd2\ttwo\n".encode())
    assert read(path) == [("d1", text), ("d2", "two")]
    path.write_bytes(f"d1\t{text}\rd2\ttwo\r".encode())
    with pytest.raises(InputError, match="its lines end in a carriage return alone"):
        read(path)


@pytest.mark.parametrize("name", ["t.tsv", "t.tsv.gz"])
def test_fields_that_a_csv_writer_put_in_quotes_are_told(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / name
    texts = ["plain", 'a "slender" wing, long', '"all of it"', 'one " alone']
    table = [("qid", "q", "pid", "text"), *((f"{n}", "x", f"p{n}", text) for n, text in enumerate(texts))]
    written = io.StringIO(newline="")
    csv.writer(written, delimiter="\t").writerows(table)
    content = written.getvalue().encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    config = TextsConfig.model_validate(
        {"path": str(path), "format": "tsv", "columns": {"id": "pid", "text": "text"}}
    )
    sources.scan(config, "passages", ["pid", "text"])
    names = {"query_id": "qid", "query": "q", "passage_id": "pid", "passage": "text"}
    plan(path, "csv", columns=names)
    told = [
        message
        for message in caplog.messages
        if message.startswith("quotation marks around fields are read as text")
    ]
    assert len(told) == 2
    assert all(f"file={path} lines=3 why='a .tsv has no quoting" in message for message in told)
    caplog.clear()
    path.unlink()
    (tmp_path / "u.tsv").write_text('qid\tq\tpid\ttext\n1\tx\tp\t"a title"\n')
    plan(tmp_path / "u.tsv", "csv", columns=names)
    assert not caplog.messages
