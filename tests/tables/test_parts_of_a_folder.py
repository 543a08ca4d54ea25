"""Files of other names, or none, in a folder of parts: every format tells its own."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.tables.config import PairsConfig
from pipeline.tables.sources import scan
from tests.tables.conftest import plan

ENDINGS = {"parquet": ".parquet", "jsonl": ".json", "csv": ".csv", "trec": ".trec"}


def write(path: Path, table_format: str, query_id: str) -> None:
    row = {"query_id": query_id, "query": "q", "passage_id": "p", "passage": "text"}
    texts = {
        "jsonl": "\n" + str(row).replace("'", '"') + "\n",
        "csv": "query,query_id,passage_id,passage\n" + f"q,{query_id},p,text\n",
        "trec": f"{query_id} Q0 p 1 2.5 tag\n",
    }
    if table_format == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    else:
        path.write_text(texts[table_format])


@pytest.mark.parametrize("table_format", ENDINGS)
def test_every_format_knows_its_own(tmp_path: Path, table_format: str) -> None:
    texts = tmp_path / "texts.tsv"
    texts.write_text("q1\ttext\n")
    options: dict[str, Any] = (
        {"queries": str(texts), "passages": str(texts)} if table_format == "trec" else {}
    )
    folder = tmp_path / "in"
    folder.mkdir()
    for name, query_id in {f"a{ENDINGS[table_format]}": "q1", "part-00001": "q2", "more": "q3"}.items():
        write(folder / name, table_format, query_id)
    for name in ("README", "notes.md", "dataset_infos.xml"):
        (folder / name).write_text("what this is, and\thow it was made {}\n")
    planned = plan(folder, table_format, **options)
    assert sum(shard.pairs for shard in planned.shards) == 3
    assert [name.rpartition("/")[2] for name in planned.skipped] == [
        "README",
        "dataset_infos.xml",
        "notes.md",
    ]
    source = scan(
        PairsConfig(path=str(folder), format=table_format), "candidates", ["query_id", "passage_id"]
    )
    assert (len(source.files), source.skipped) == (3, planned.skipped)
    write(folder / "b.old", table_format, "q9")
    with pytest.raises(InputError, match=r"b.old: looks like \.\w+, and ends in none of"):
        plan(folder, table_format, **options)
    (folder / "b.old").unlink()
    (folder / "part-00002").write_text("none of this\n")
    with pytest.raises(InputError, match="part-00002"):
        plan(folder, table_format, **options)


def test_a_part_of_hive_without_column_names_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "csv", "q1")
    (tmp_path / "000000_0").write_text("q,q2,p,text\n")
    with pytest.raises(InputError, match="000000_0: no column 'query_id'; it has q, q2, p, text"):
        plan(tmp_path, "csv")
