"""The registry of formats: a new one is one new file, and configs ask the formats what goes with them."""

import os
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pipeline import job_record, output
from pipeline.errors import InputError
from pipeline.preparation.config import PrepareConfig
from pipeline.preparation.plan import Preparation, record_of
from pipeline.preparation.plan import plan as plan_preparation
from pipeline.preparation.tasks import read_file_ranges, write_part
from pipeline.tables import formats, sources
from pipeline.tables.config import InputConfig, PairsConfig, TextsConfig
from pipeline.tables.format import (
    CandidateFormat,
    FileFormat,
    SnapshotFormat,
    WholeFormat,
    candidate_format,
    candidate_formats,
    whole_formats,
)
from pipeline.tables.formats import csv, delta, iceberg, jsonl, lance, parquet, trec, tsv
from pipeline.tables.output.config import OutputConfig
from pipeline.tables.table_files import directory_of
from tests.tables.conftest import plan, read_all

NEW_FORMAT = '''
"""A candidate a line: query_id|query|passage_id|passage."""

from functools import partial

import pyarrow as pa

from pipeline.tables.input.layout import reading_schema, scan_schema
from pipeline.tables.input.text_file import open_text
from pipeline.tables.input.text_lines import RunFinder, checked, numbered_lines
from pipeline.tables.input.traits import Traits
from pipeline.tables.input.whole_table import joined_chars, read_rows, scan_rows, text_types

TRAITS = Traits()
SUFFIXES = (".bars",)
COLUMNS = ("query_id", "query", "passage_id", "passage")


def is_like(first, id_name):
    return b"|" in first


def scan(file, layout):
    runs, stop = RunFinder(), 0
    with open_text(file.url, layout.limits) as text:
        for start, number, line in numbered_lines(text, 0, None, 1):
            stop = start + len(line)
            runs.add(line.decode().split("|")[0], start, number)
    return runs.scan(file, 0, 1, stop, scan_schema(pa.string(), pa.string(), {}))


def read(file_range, layout, schema):
    with open_text(file_range.file, layout.limits) as text:
        lines = numbered_lines(text, file_range.start, file_range.stop, file_range.first_row)
        rows = [(number, line.decode().rstrip("\\n").split("|")) for _, number, line in lines]
    ids = (pa.string(), pa.string())
    table = [
        checked({**dict(zip(COLUMNS, values)), "kept": {}, "row": number, "item": None}, ids)
        for number, values in rows
    ]
    return pa.Table.from_pylist(table, schema=reading_schema(schema))


def rows(text):
    for _, number, line in numbered_lines(text, 0, None, 1):
        yield number, dict(zip(COLUMNS, line.decode().rstrip("\\n").split("|")))


def scan_table(file, layout):
    return scan_rows(file, rows, layout, text_types, joined_chars)


def read_table(file_range, layout, schema):
    return read_rows(file_range, rows, layout, schema)
'''


@pytest.fixture
def new_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module that stands in no list, in a directory of the package."""
    folder = tmp_path / "more formats"
    folder.mkdir()
    (folder / "bars.py").write_text(NEW_FORMAT)
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(folder)])
    yield "bars"
    sys.modules.pop("pipeline.tables.formats.bars", None)
    vars(formats).pop("bars", None)


def prepared(settings: dict[str, Any]) -> Preparation:
    """A whole preparation in one partition, without Ray."""
    config = PrepareConfig.model_validate(settings)
    preparation, path = plan_preparation(config), config.output.path
    job_record.write_record(output.open_directory(path, []), record_of(config, preparation))
    parts = [
        part
        for read in preparation.reads(["candidates"])
        for part in read_file_ranges(pa.Table.from_pylist([read]), path, preparation)
    ]
    write_part(pa.concat_tables(parts), path, preparation)
    return preparation


@pytest.mark.parametrize(
    ("name", "content", "table_format", "advice"),
    [
        ("run.txt", "q1 Q0 d1 1 9.5 bm25\n", "parquet", "file. It looks like trec: --set input.format=trec$"),
        (
            "t.jsonl",
            '{"query_id": 1}\n',
            "csv",
            r"input\.columns, .*prepare\. It looks like jsonl: --set input.format=jsonl$",
        ),
        ("t.tsv", "query_id\tquery\n", "jsonl", r"right\? It looks like csv: --set input.format=csv$"),
        ("t.jsonl", "query_id,query\n", "jsonl", r"right\? It looks like csv: --set input.format=csv$"),
        (
            "in/t.csv",
            "query_id,query\n",
            "jsonl",
            "no files here .* It looks like csv: --set input.format=csv$",
        ),
        (
            "t.dat",
            "nothing\n",
            "jsonl",
            "input.format is jsonl; it may be csv, flag_embedding, parquet, trec: ",
        ),
        ("t.jsonl", "nothing\n", "jsonl", r"holds no line that is a JSON object; is input.format right\?$"),
    ],
)
def test_a_file_of_another_format_is_told_with_that(
    tmp_path: Path, name: str, content: str, table_format: str, advice: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / name).write_text(content)
    path = tmp_path / ("in" if name.startswith("in/") else name)
    with pytest.raises(InputError, match=advice):
        plan(path, table_format)


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.dat")
    with pytest.raises(InputError, match=r"t.dat \(is no file\)"):
        plan(tmp_path / "t.dat", "jsonl")


def test_a_new_format_is_one_new_file(tmp_path: Path, new_format: str) -> None:
    table = tmp_path / "table.bars"
    table.write_text("q1|one|p1|a\nq1|one|p2|b\nq2|two|p1|a\n")
    assert [shard.pairs for shard in plan(table, new_format, shard_pairs=1).shards] == [2, 1]
    good, bad = read_all(table, new_format, shard_pairs=1)
    assert [(row["query"], row["passage"], row["row"]) for row in good] == [
        ("one", "a", 1), ("one", "b", 2), ("two", "a", 3),
    ]  # fmt: skip
    assert bad == []
    made = tmp_path / "prepared"
    prepared({"candidates": {"path": str(table), "format": new_format}, "output": {"path": str(made)}})
    (part,) = (made / "candidates").iterdir()
    assert pq.read_schema(part).metadata == {b"rayrank": b'{"kind": "candidates", "format_version": 2}'}
    assert pq.read_table(part)["passage_id"].to_pylist() == ["p1", "p2", "p1"]


def test_an_unknown_format_is_refused_with_those_there_are(new_format: str) -> None:
    *others, last = sorted(candidate_formats())
    assert new_format in others
    with pytest.raises(ValidationError, match=f"needs one of {', '.join(others)} and {last}"):
        InputConfig(path="x", format="xlsx")
    *others, last = sorted(whole_formats())
    assert new_format in others
    with pytest.raises(ValidationError, match=f"needs one of {', '.join(others)} and {last}"):
        PairsConfig(path="x", format="xlsx")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"version": 3}, "version goes with delta, iceberg and lance; parquet files have none"),
        ({"format": "csv", "queries": "q"}, "queries and passages go with format trec; csv tables hold"),
        ({"format": "trec", "queries": "q"}, "format trec holds ids only: give queries and passages"),
    ],
)
def test_fields_go_with_formats(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        InputConfig.model_validate({"path": "x", **fields})


def test_a_header_goes_with_what_names_no_columns() -> None:
    with pytest.raises(ValidationError, match="header goes with format tsv; csv tables name their columns"):
        PairsConfig(path="x", format="csv", header=("a", "b"))
    assert PairsConfig(path="x", format="tsv", header=("a", "b")).header == ("a", "b")


def test_every_format_is_found_by_its_files_or_knows_them_itself() -> None:
    for name, module in candidate_formats().items():
        assert isinstance(module, FileFormat) != isinstance(module, SnapshotFormat), name
    for name, whole in whole_formats().items():
        assert isinstance(whole, FileFormat) != isinstance(whole, SnapshotFormat), name
    lakehouses = {"delta", "iceberg", "lance"}
    assert {"csv", "jsonl", "parquet", "trec", "tsv"} | lakehouses == whole_formats().keys()


def test_the_formats_here_have_the_types_of_the_protocols() -> None:
    # mypy compares their functions with the protocols'; the registry, at run time, sees only that they exist.
    candidates: list[CandidateFormat] = [csv, delta, iceberg, jsonl, lance, parquet, trec]
    wholes: list[WholeFormat] = [csv, delta, iceberg, jsonl, lance, parquet, trec, tsv]
    snapshots: list[SnapshotFormat] = [delta, iceberg, lance]
    assert all(module in candidate_formats().values() for module in candidates)
    assert all(module in whole_formats().values() for module in wholes)
    assert all(isinstance(module, SnapshotFormat) for module in snapshots)


def test_an_extra_that_a_format_needs_is_one_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = {module.TRAITS.extra for module in candidate_formats().values()} - {None}
    assert extras == {"delta", "iceberg", "lance"}
    assert extras <= project["optional-dependencies"].keys()


def test_a_table_lies_somewhere_unless_its_path_is_a_name(tmp_path: Path) -> None:
    config = InputConfig(path=f"{tmp_path}/", format="delta")
    assert directory_of(config) == str(tmp_path)
    assert directory_of(InputConfig(path="catalog://prod/a.b", format="iceberg")) is None
    assert candidate_format("iceberg").TRAITS.path_is_place is False


def test_a_config_imports_no_library_of_a_format(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("delta", "iceberg", "lance"):  # as a process that has read no table yet
        monkeypatch.setattr(formats, name, import_module(f"{formats.__name__}.{name}"))
        monkeypatch.delitem(sys.modules, f"{formats.__name__}.{name}")
    for library in ("deltalake", "lance", "pyiceberg", "pyiceberg.catalog"):
        monkeypatch.setitem(sys.modules, library, None)  # importing it fails
    for name in ("delta", "iceberg", "lance"):
        assert InputConfig(path="x", format=name).format == name
        with pytest.raises(InputError, match=f"pip install 'rayrank.{name}.'"):
            plan("catalog://x/a.b" if name == "iceberg" else "x", name)


def test_fields_are_described_by_their_docstrings() -> None:
    assert str(InputConfig.model_fields["version"].description).startswith("delta, iceberg (a snapshot's id)")
    assert str(OutputConfig.model_fields["top_k"].description) == "Candidates kept a query; null keeps all."
    assert str(PairsConfig.model_fields["header"].description).startswith("tsv only: the columns' names")


def test_tabs_are_read_as_csv_where_candidates_are_meant_and_as_tsv_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="needs one of csv, .*; csv reads tabs where a file's name ends in .tsv"
    ):
        InputConfig.model_validate({"path": "t.tsv", "format": "tsv"})
    (tmp_path / "t.tsv").write_text("_id\ttext\n1\ta\n")
    config = TextsConfig.model_validate({"path": str(tmp_path / "t.tsv"), "format": "jsonl"})
    with pytest.raises(InputError, match="It looks like tsv or csv: --set passages.format=tsv$"):
        sources.scan(config, "passages", ["_id", "text"])
