import re
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.tables.storage import locate
from tests.tables.conftest import plan, write_parquet


@pytest.mark.parametrize(
    ("url", "protocol", "path"),
    [
        ("/a::b/x.parquet", "file", "/a::b/x.parquet"),
        ("file:///a::b/x.parquet", "file", "/a::b/x.parquet"),
        ("s3://bucket/a::b.parquet", "s3", "bucket/a::b.parquet"),
        ("s3://bucket/zip::b.parquet", "s3", "bucket/zip::b.parquet"),
        ("simplecache::file:///a/x.parquet", "simplecache", "/a/x.parquet"),
        ("simplecache::/a/x.parquet", "simplecache", "/a/x.parquet"),
    ],
)
def test_two_colons_in_a_name_chain_nothing(url: str, protocol: str, path: str) -> None:
    fs, found = locate(url, InputError)
    assert protocol in ([fs.protocol] if isinstance(fs.protocol, str) else fs.protocol)
    assert found == path


def test_a_table_in_a_folder_with_two_colons_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "a::b"
    folder.mkdir()
    write_parquet(folder / "t.parquet", [{"query_id": "q", "query": "a", "passage_id": "p", "passage": "b"}])
    for path in (folder, f"file://{folder}/t.parquet"):
        assert [shard.pairs for shard in plan(path, "parquet").shards] == [1]


@pytest.mark.parametrize(
    "url", ["zip://t.jsonl::/a.zip", "zip::s3://bucket/a.zip", "tar://t.jsonl", "zip:///a"]
)
def test_archives_are_refused(url: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(url)}: tables inside of archives are neither read"):
        locate(url, InputError)
