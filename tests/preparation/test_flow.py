"""Candidate tables made of ids and texts, in this process; executors/test_ray_data.py has it on Ray."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config_file import load
from pipeline.errors import ConfigError, InputError, OutputError
from pipeline.preparation import flow
from pipeline.preparation.config import PrepareConfig
from pipeline.prepare import main
from tests.conftest import ROOT
from tests.preparation.tables import (
    PASSAGES,
    QUERIES,
    bytes_of,
    config,
    ids,
    output_rows,
    planned,
    texts,
    trec,
    write_jsonl,
)


def test_a_trec_run_gets_its_texts(folder: Path) -> None:
    summary = flow.run(trec(folder))
    rows = output_rows(folder)
    assert ids(rows) == [(query, f"p{rank}") for query in QUERIES for rank in (3, 1, 2)]
    assert rows[5] == {
        "query_id": "q2", "query": "second ? 熊", "passage_id": "p2", "passage": "Title p2 two",
        "rank": 2, "score": 7.5, "tag": "bm25",
    }  # fmt: skip
    assert rows[0]["passage"] == ""  # an empty text is a text
    assert (summary.candidates, summary.written, summary.queries, summary.rejected) == (9, 9, 3, {})
    assert (summary.query_texts, summary.passage_texts) == (3, 3)
    assert planned(folder) == (3, 9)


def test_a_beir_folder_with_its_judgments(folder: Path) -> None:
    columns = {"query_id": "query-id", "passage_id": "corpus-id"}
    judged = {"path": str(folder / "qrels/test.tsv"), "format": "tsv", "columns": columns}
    flow.run(config(folder, judged))
    assert ids(output_rows(folder)) == [("q2", "p1"), ("q2", "p3"), ("q1", "p2")]
    assert [row["score"] for row in output_rows(folder)] == ["1", "0", "1"]


def test_an_id_that_is_no_text_is_named_by_its_field(folder: Path) -> None:
    broken = pa.array([b"q1", b"\xff", b"q1"]).cast(pa.string(), safe=False)
    table = pa.table({"query_id": broken, "passage_id": ["p1", "p1", "p2"]})
    pq.write_table(table, folder / "table.parquet")
    summary = flow.run(config(folder, {"path": str(folder / "table.parquet")}))
    assert (summary.written, summary.rejected) == (2, {"invalid_text": 1})
    [reject] = output_rows(folder, "rejects")
    assert (reject["row"], reject["query_id"], reject["passage_id"]) == (2, None, "p1")
    assert reject["field"] == "query_id"


def test_rows_without_texts_or_ids_are_kept_apart(folder: Path) -> None:
    found = [("q1", "p1"), ("q9", "p1"), (None, "p2"), ("q1", "p9"), ("q2", None), ("q9", "p9"), ("q1", "p2")]
    table = pa.table({"query_id": [one for one, _ in found], "passage_id": [other for _, other in found]})
    pq.write_table(table, folder / "table.parquet", row_group_size=2)
    summary = flow.run(config(folder, {"path": str(folder / "table.parquet")}))
    assert (summary.candidates, summary.written, summary.queries) == (7, 2, 1)
    expected = {"no_passage_text": 2, "no_query_text": 1, "null_passage_id": 1, "null_query_id": 1}
    assert summary.rejected == expected
    assert json.loads((folder / "out/summary.json").read_text())["rejected"] == expected
    rejects = sorted(output_rows(folder, "rejects"), key=lambda row: row["row"])
    assert [(row["row"], row["query_id"], row["passage_id"], row["reason"]) for row in rejects] == [
        (2, "q9", "p1", "no_query_text"),
        (3, None, "p2", "null_query_id"),
        (4, "q1", "p9", "no_passage_text"),
        (5, "q2", None, "null_passage_id"),
        (6, "q9", "p9", "no_passage_text"),
    ]
    assert {row["file"] for row in rejects} == {str(folder / "table.parquet")}
    assert "5 rows rejected" in summary.as_text()


def test_scattered_rows_come_together(folder: Path) -> None:
    rows = [
        {
            "qid": number % 5,
            "q": f"query {number % 5}",
            "pid": number,
            "p": f"text {number}",
            "first": number / 7,
        }
        for number in range(100)
    ]
    (folder / "table").mkdir()
    for part in range(3):
        pq.write_table(pa.Table.from_pylist(rows[part::3]), folder / f"table/{part}.parquet")
    columns = {"query_id": "qid", "query": "q", "passage_id": "pid", "passage": "p"}
    flow.run(config(folder, {"path": str(folder / "table"), "columns": columns}, queries=None, passages=None))
    prepared = output_rows(folder)
    in_order = [row for part in range(3) for row in rows[part::3]]
    queries = list(dict.fromkeys(row["qid"] for row in in_order))
    expected = [row for query in queries for row in in_order if row["qid"] == query]
    assert [[*row.values()] for row in prepared] == [[*row.values()] for row in expected]
    assert planned(folder) == (5, 100)


@pytest.mark.parametrize("kind", ["integer", "binary"])
def test_ids_stay_what_they_are(folder: Path, kind: str) -> None:
    def as_id(number: int) -> int | bytes:
        return 2**40 - number if kind == "integer" else b"\xff%d" % number

    for name in ("queries", "corpus"):
        rows = [{"_id": as_id(number), "text": f"{name} {number}"} for number in range(4)]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    pairs = [{"query_id": as_id(number % 2), "passage_id": as_id(number)} for number in range(4)]
    pq.write_table(pa.Table.from_pylist(pairs), folder / "table.parquet")
    parquet = {
        field: {"path": str(folder / f"{name}.parquet")}
        for field, name in (("queries", "queries"), ("passages", "corpus"))
    }
    flow.run(config(folder, {"path": str(folder / "table.parquet")}, **parquet))
    assert [
        (*pair, row["passage"])
        for pair, row in zip(ids(output_rows(folder)), output_rows(folder), strict=True)
    ] == [(as_id(number % 2), as_id(number), f"corpus {number}") for number in (0, 2, 1, 3)]
    with pytest.raises(
        InputError, match=r"corpus.jsonl: column '_id' is string, and 'passage_id' in .* is (int64|binary)"
    ):
        flow.run(config(folder, {"path": str(folder / "table.parquet")}, queries=parquet["queries"]))


@pytest.mark.parametrize("table_format", ["csv", "jsonl", "tsv without a header"])
def test_text_formats(folder: Path, table_format: str) -> None:
    rows = [{"query_id": query, "passage_id": "p1", "n": number} for number, query in enumerate(QUERIES)]
    table = folder / "table"
    settings: dict[str, Any] = {"path": str(table), "format": table_format.partition(" ")[0]}
    if table_format == "jsonl":
        write_jsonl(table, [*rows, {"query_id": "q1", "passage_id": "p2", "n": 0.5, "late": [1]}])
    else:
        with table.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="," if table_format == "csv" else "\t")
            if table_format == "csv":
                writer.writeheader()
            else:
                settings["header"] = list(rows[0])
            writer.writerows(rows)
    flow.run(config(folder, settings))
    prepared = output_rows(folder)
    if table_format == "jsonl":
        assert [row["n"] for row in prepared] == [0.0, 0.5, 1.0, 2.0]
        assert [row["late"] for row in prepared] == [None, "[1]", None, None]
    else:
        assert [(row["query_id"], row["query"], row["n"]) for row in prepared] == [
            (query, text, str(number)) for number, (query, text) in enumerate(QUERIES.items())
        ]


def test_what_is_not_its_own_is_refused(folder: Path) -> None:
    flow.run(trec(folder))
    write_jsonl(folder / "queries.jsonl", texts({**QUERIES, "q4": "new"}))
    with pytest.raises(
        OutputError,
        match=r"(?s)holds the output of another job.*queries.jsonl: was .*Take another output.path",
    ):
        flow.run(trec(folder))
    with pytest.raises(OutputError, match=r"not empty, and no output of this program \(holds test.tsv, "):
        flow.run(trec(folder, output={"path": str(folder / "qrels")}))
    inside = config(folder, {"path": str(folder), "format": "trec"}, output={"path": str(folder / "x/out")})
    with pytest.raises(OutputError, match="lies inside of the input"):
        flow.run(inside)


def test_an_id_has_one_text(folder: Path) -> None:
    same = [*texts(PASSAGES), {"_id": "p1", "text": "one"}]
    write_jsonl(folder / "corpus.jsonl", same)
    assert flow.run(trec(folder)).passage_texts == 4
    write_jsonl(folder / "corpus.jsonl", [*same, {"_id": "p1", "text": "another"}])
    with pytest.raises(
        InputError, match=r"corpus.jsonl row 5: passage id 'p1' has another text than in .* row 1"
    ):
        flow.run(trec(folder, output={"path": str(folder / "other")}))


def test_mistakes_are_named(folder: Path) -> None:
    corpus = folder / "corpus.jsonl"
    with pytest.raises(InputError, match=r"nowhere: no such file"):
        flow.run(trec(folder, queries={"path": str(folder / "nowhere")}))
    queries = {"path": str(folder / "queries.jsonl"), "format": "jsonl", "columns": {"id": "id"}}
    with pytest.raises(
        InputError, match=r"queries.jsonl: no column 'id'; it has _id, text.* queries.columns"
    ):
        flow.run(trec(folder, queries=queries))
    with pytest.raises(InputError, match=r"corpus.jsonl: not a readable Parquet file.*passages.format=jsonl"):
        flow.run(trec(folder, passages={"path": str(corpus)}))
    settings = {"output": {"path": f"{folder}-out"}, "passages": {"path": str(folder), "format": "jsonl"}}
    with pytest.raises(InputError, match=r"queries.jsonl, which queries.path has too"):
        flow.run(trec(folder, **settings))
    write_jsonl(corpus, [{"_id": 4, "text": "four"}])
    with pytest.raises(InputError, match=r"corpus.jsonl: column '_id' is int64, .* must be of one type"):
        flow.run(trec(folder))


def test_texts_that_can_not_be_used_are_kept_apart(folder: Path) -> None:
    with (folder / "corpus.jsonl").open("ab") as stream:
        stream.write(
            b'{"_id": "p4", \n'
            b'{"_id": "p5", "text": "\xff"}\n'
            b'{"_id": "p6", "text": "\\ud800"}\n'
            b'{"_id": "p7", "text": 7}\n'
            b'{"_id": 8, "text": "eight"}\n'
            b'{"_id": null, "text": "nine"}\n'
            b'{"_id": "p10", "title": ["t"], "text": "ten"}\n'
            b'{"_id": "p11", "text": "eleven"}\n'
        )
    with (folder / "run.trec").open("a") as stream:
        stream.write("q1 Q0 p7 9 1 bm25\nno line of a run\nq1 Q0 p11 9 0 bm25\n")
    summary = flow.run(trec(folder))
    assert (summary.candidates, summary.written, summary.passage_texts) == (12, 10, 11)
    assert summary.rejected_texts == 7
    assert summary.rejected == {
        "invalid_id": 1, "invalid_text": 4, "malformed_row": 2, "no_passage_text": 1, "null_passage_id": 1
    }  # fmt: skip
    assert summary.candidates + summary.rejected_texts == summary.written + sum(summary.rejected.values())
    rejects = sorted(output_rows(folder, "rejects"), key=lambda row: (row["file"], row["row"]))
    assert [tuple(row[name] for name in ("row", "passage_id", "reason", "field")) for row in rejects] == [
        (4, None, "malformed_row", None),
        (5, None, "invalid_text", None),
        (6, "p6", "invalid_text", "passage"),
        (7, "p7", "invalid_text", "passage"),
        (8, None, "invalid_id", "passage_id"),
        (9, None, "null_passage_id", None),
        (10, "p10", "invalid_text", "title"),
        (10, "p7", "no_passage_text", None),
        (11, None, "malformed_row", None),
    ]
    assert [Path(row["file"]).name for row in rejects] == ["corpus.jsonl"] * 7 + ["run.trec"] * 2
    right = bytes_of(folder / "out")
    (folder / "out/rejects/passages-000000.parquet").unlink()
    flow.run(trec(folder))
    assert bytes_of(folder / "out") == right


def test_candidates_without_any_text_that_can_be_used_are_rejected(folder: Path) -> None:
    write_jsonl(folder / "corpus.jsonl", [{"_id": "p1", "text": ["x"]}])
    summary = flow.run(trec(folder))
    assert (summary.written, summary.rejected) == (0, {"invalid_text": 1, "no_passage_text": 9})


def test_a_corrupt_file_is_named(folder: Path) -> None:
    table = pa.table({"_id": [f"p{number}" for number in range(1000)], "text": ["x" * 50] * 1000})
    pq.write_table(table, folder / "corpus.parquet", compression="zstd")
    data = bytearray((folder / "corpus.parquet").read_bytes())
    data[100:400] = bytes(300)
    (folder / "corpus.parquet").write_bytes(data)
    with pytest.raises(InputError, match=r"corpus.parquet: not a readable Parquet file"):
        flow.run(trec(folder, passages={"path": str(folder / "corpus.parquet")}))


def test_files_of_a_table_are_alike(folder: Path) -> None:
    (folder / "table").mkdir()
    one = pa.table({"query_id": ["q1"], "passage_id": ["p1"], "score": [1.0]})
    pq.write_table(one, folder / "table/a.parquet")
    pq.write_table(one.append_column("tag", pa.array(["x"])), folder / "table/b.parquet")
    with pytest.raises(InputError, match=r"b.parquet: column 'tag' is string, and not there in .*a.parquet"):
        flow.run(config(folder, {"path": str(folder / "table")}))
    pq.write_table(one.append_column("query", pa.array(["x"])), folder / "table/a.parquet")
    (folder / "table/b.parquet").unlink()
    with pytest.raises(InputError, match=r"column 'query' would stand twice.*leave queries out"):
        flow.run(config(folder, {"path": str(folder / "table")}))


def test_the_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    command = [
        "--config",
        "configs/prepare/demo.yaml",
        "--set",
        f"output.path={folder}/out",
        "--set",
        "executor=here",
    ]
    assert main([*command, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "passages   1 files" in told
    assert "memory     about 0.1 MiB of rows, all at once in this process" in told
    assert "shuffle" not in told
    assert main([*command, "executor=ray_data", "--dry-run"]) == 0
    assert "memory     up to 1024.0 MiB a CPU" in capsys.readouterr().out
    assert not (folder / "out").exists()
    assert main(command) == 0
    assert "640 of 640 candidates of 32 queries" in capsys.readouterr().out
    assert planned(folder) == (32, 640)
    assert main([*command, "--set", "passages.columns.title=heading"]) == 2
    assert "no column 'heading'" in capsys.readouterr().err


def test_a_mistake_in_the_config_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "candidates: {path: x, format: trec}\nqueries: {path: x, format: trec}\noutput: {path: y}\n"
    )
    with pytest.raises(
        ConfigError,
        match=r"a.yaml line 2: queries.format: needs one of csv, delta, .*lance, parquet and tsv",
    ):
        load(PrepareConfig, tmp_path / "a.yaml", [])


def test_a_finished_table_is_not_touched_and_an_unfinished_one_made_afresh(folder: Path) -> None:
    first = flow.run(trec(folder))
    before = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*")}
    again = flow.run(trec(folder))
    assert again.model_dump() == first.model_dump()
    assert again.as_text().startswith("Finished before, at 20")
    assert first.finished_before is None
    assert {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*")} == before
    data = bytes_of(folder / "out")
    (folder / "out/_SUCCESS").unlink()  # as if killed
    (folder / "out/candidates/part-stale.parquet").write_bytes(b"x")
    flow.run(trec(folder))
    assert bytes_of(folder / "out") == data


def test_tables_that_this_process_cant_hold_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.preparation.executors.here._LARGEST_BYTES", 100)
    with pytest.raises(ConfigError, match="executor here: holds all rows in memory.*to ray_data"):
        flow.run(trec(folder))


@pytest.mark.parametrize("most", [1, 40, 2**28])
def test_texts_that_many_candidates_share_are_written_in_stretches(
    folder: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr("pipeline.preparation.joining.STRETCH_BYTES", most)
    assert flow.run(trec(folder)).written == 9
    rows = output_rows(folder)
    assert ids(rows) == [(query, f"p{rank}") for query in QUERIES for rank in (3, 1, 2)]
    assert [row["passage"] for row in rows] == ["", "one", "Title p2 two"] * 3
    groups = pq.ParquetFile(next((folder / "out/candidates").iterdir())).num_row_groups
    assert (groups == 1) == (most == 2**28)
