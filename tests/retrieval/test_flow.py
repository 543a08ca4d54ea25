"""The first stage from texts to the table that `rerank` takes, in this process."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import status
from pipeline.config_file import load
from pipeline.errors import ConfigError, InputError, OutputError, TemporaryError
from pipeline.reranking import flow as reranking
from pipeline.reranking.config import RerankConfig
from pipeline.retrieval import steps
from pipeline.retrieval.config import RetrieveConfig
from pipeline.retrieve import main
from pipeline.tables.candidates import plan_table, read_shard
from pipeline.tables.config import InputConfig
from pipeline.tables.output.tasks import Task
from tests.conftest import MINILM, ROOT
from tests.retrieval.tables import bytes_of, config, make, rows_of, write_jsonl, write_texts

PASSAGES = {"p1": "the giant panda is a bear", "p2": "a bridge of stone", "p3": "", "p4": "panda bridge"}
QUERIES = {"q1": "panda", "q2": "stone bridge", "q3": "unheard!"}
BOTH = {"words": {"bm25": {}}, "minilm": {"dense": {"scorer": {"model": MINILM, "device": "cpu"}}}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_texts(tmp_path, PASSAGES, QUERIES)
    return tmp_path


def found(rows: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
    return [(row["query_id"], row["passage_id"]) for row in rows]


def test_rerank_takes_the_table(folder: Path) -> None:
    summary = make(config(folder))
    rows = rows_of(folder)
    assert found(rows) == [("q1", "p4"), ("q1", "p1"), ("q2", "p2"), ("q2", "p4")]
    assert [row["first_stage_rank"] for row in rows] == [1, 2, 1, 2]
    assert (rows[0]["query"], rows[0]["passage"]) == ("panda", "panda bridge")
    assert list(rows[0]) == [
        "query_id", "query", "passage_id", "passage", "first_stage_rank", "first_stage_score"
    ]  # fmt: skip
    assert (summary.passages, summary.queries, summary.unmatched, summary.candidates) == (4, 3, 1, 4)
    settings = {
        "input": {"path": str(folder / "out/candidates")},
        "output": {"path": str(folder / "run"), "keep_columns": {"before": "first_stage_rank"}},
        "scorer": {"model": MINILM, "device": "cpu"},
        "executor": "here",
    }
    assert reranking.run(RerankConfig.model_validate(settings)).pairs == 4


def test_several_sources_are_fused(folder: Path) -> None:
    make(config(folder, sources=BOTH, output={"top_k": 3, "trec_run": True}))
    rows = rows_of(folder)
    by_words = {(row["query_id"], row["passage_id"]): row["words_rank"] for row in rows}
    assert len(rows) == 9  # embeddings have an answer to everything
    assert (by_words["q1", "p4"], by_words["q2", "p2"]) == (1, 1)
    best = next(row for row in rows if row["query_id"] == "q2")
    assert best["passage_id"] == "p2"
    assert best["first_stage_score"] == pytest.approx(2 / 61)
    assert (best["words_rank"], best["minilm_rank"]) == (1, 1)
    assert all(row["words_score"] is None for row in rows if row["query_id"] == "q3")
    lines = (folder / "out/run.trec").read_text().splitlines()
    assert lines[0].split()[:4] == ["q1", "Q0", rows[0]["passage_id"], "1"]
    assert len(lines) == 9
    found_by_words = [line.split()[:4] for line in (folder / "out/run.words.trec").read_text().splitlines()]
    assert found_by_words == [
        ["q1", "Q0", "p4", "1"], ["q1", "Q0", "p1", "2"], ["q2", "Q0", "p2", "1"], ["q2", "Q0", "p4", "2"]
    ]  # fmt: skip
    assert len((folder / "out/run.minilm.trec").read_text().splitlines()) == 9


def test_a_sources_own_run_is_that_of_the_source_alone(folder: Path) -> None:
    words = {"bm25": {}, "top_k": 2}
    output = {"top_k": 1, "trec_run": True}
    make(config(folder, sources=BOTH | {"words": words}, shard_passages=2, output=output))
    alone = {"words": words | {"top_k": None}}
    make(config(folder, sources=alone, output={"path": f"{folder}/alone", "top_k": 2, "trec_run": True}))
    run = (folder / "out/run.words.trec").read_bytes()
    assert run == (folder / "alone/run.trec").read_bytes()
    assert not list((folder / "alone").glob("run.*.trec"))
    (folder / "out/run.words.trec").unlink()
    make(config(folder, sources=BOTH | {"words": words}, shard_passages=2, output=output))
    assert (folder / "out/run.words.trec").read_bytes() == run


def test_ids_alone_and_kept_columns(folder: Path) -> None:
    rows = [{"_id": key, "text": text, "year": len(text)} for key, text in PASSAGES.items()]
    write_jsonl(folder / "corpus.jsonl", rows)
    make(config(folder, output={"texts": False, "keep_columns": {"published": "year"}}))
    assert rows_of(folder)[0] == {
        "query_id": "q1", "passage_id": "p4", "first_stage_rank": 1,
        "first_stage_score": pytest.approx(0.43, abs=0.3), "published": 12,
    }  # fmt: skip
    with pytest.raises(InputError, match=r"no column 'color'.*output.keep_columns"):
        make(config(folder, output={"path": str(folder / "b"), "keep_columns": {"hue": "color"}}))


def test_rows_that_can_not_be_used_are_kept_apart(folder: Path) -> None:
    ids = ["p1", "p2", None, "p1", "p4", "p2"]
    texts = ["panda", "bridge", "lost", "other", None, "bridge"]
    table = pa.table({"_id": pa.array(ids), "text": pa.array(texts)})
    pq.write_table(table, folder / "corpus.parquet")
    write_jsonl(folder / "queries.jsonl", [{"_id": "q1", "text": "panda"}, {"_id": "q1", "text": "again"}])
    for size in (1, 100):
        out = folder / str(size)
        settings = {"passages": {"path": str(folder / "corpus.parquet")}, "output": {"path": str(out)}}
        summary = make(config(folder, shard_passages=size, **settings))
        expected = {
            "duplicate_passage_id": 2, "duplicate_query_id": 1, "null_passage": 1, "null_passage_id": 1
        }  # fmt: skip
        assert summary.rejected == expected
        assert (summary.passages, summary.queries) == (2, 1)
        assert found(rows_of(out, "candidates")) == [("q1", "p1")]
        rejects = sorted(rows_of(out, "rejects"), key=lambda row: (row["file"], row["row"]))
        assert [(row["row"], row["passage_id"], row["query_id"], row["reason"]) for row in rejects] == [
            (3, None, None, "null_passage_id"),
            (4, "p1", None, "duplicate_passage_id"),
            (5, "p4", None, "null_passage"),
            (6, "p2", None, "duplicate_passage_id"),
            (2, None, "q1", "duplicate_query_id"),
        ]


def test_what_is_no_text_is_named_by_its_field(folder: Path) -> None:
    names = ["_id", "title", "text", "color"]
    rows = [[f"p{at}".encode(), b"a title", b"panda", b"red"] for at in range(6)]
    for at, name in enumerate(names):
        rows[at + 1][names.index(name)] = b"bro\xffken"
    rows[5][1:3] = b"bro\xffken", b"bro\xffken"
    columns = zip(*rows, strict=True)
    table = pa.table([pa.array(column).cast(pa.string(), safe=False) for column in columns], names)
    pq.write_table(table, folder / "corpus.parquet")
    settings = {"passages": {"path": str(folder / "corpus.parquet")}, "queries": {"path": str(folder / "q")}}
    query = pa.table(
        {"_id": ["q1", "q2"], "text": pa.array([b"panda", b"\xff"]).cast(pa.string(), safe=False)}
    )
    pq.write_table(query, folder / "q")
    summary = make(config(folder, **settings, output={"keep_columns": {"hue": "color"}}))
    assert summary.rejected == {"invalid_text": 6}
    assert found(rows_of(folder)) == [("q1", "p0")]
    rejects = sorted(rows_of(folder, "out/rejects"), key=lambda row: (row["file"], row["row"]))
    assert [(row["passage_id"] or row["query_id"], row["field"]) for row in rejects] == [
        (None, "passage_id"),
        ("p2", "title"),
        ("p3", "passage"),
        ("p4", "hue"),
        ("p5", "title"),
        ("q2", "query"),
    ]


BAD_LINES = [
    (b'{"_id": "p1", "text": "bear \\ud83d"}', "p1", "invalid_text", "passage"),
    (b'{"_id": "\\ud83d", "text": "bear"}', None, "invalid_text", "passage_id"),
    (b'{"_id": "p3", "title": "x\\udc00", "text": "bear"}', "p3", "invalid_text", "title"),
    (b'{"_id": "p4", "text": "bear", "color": "\\ud83d"}', "p4", "invalid_text", "hue"),
    (b'{"_id": "p5", "text": 5}', "p5", "invalid_text", "passage"),
    (b'{"_id": "p6", "text": ["x"]}', "p6", "invalid_text", "passage"),
    (b'{"_id": "p7", "title": 7, "text": "x"}', "p7", "invalid_text", "title"),
    (b'{"_id": 8, "text": "x"}', None, "invalid_id", "passage_id"),
    (b'{"_id": ["x"], "text": 9}', None, "invalid_id", "passage_id"),
    (b"{oops", None, "malformed_row", None),
    (b"null", None, "malformed_row", None),
    (b'{"_id": "p12", "_id": "p12", "text": "x"}', None, "malformed_row", None),
    (b'{"_id": "p13", "text": "\xff"}', None, "invalid_text", None),
    (b'{"text": "x"}', None, "null_passage_id", None),
]  # fmt: skip
GOOD_LINE = b'{"_id": "z%d", "text": "panda", "color": "red"}'


def test_one_bad_line_is_rejected_and_the_rest_goes_on(folder: Path) -> None:
    lines = [GOOD_LINE % 0]
    for number, (line, *_) in enumerate(BAD_LINES, start=1):
        lines += [line, GOOD_LINE % number]
    (folder / "corpus.jsonl").write_bytes(b"\n".join(lines))
    (folder / "queries.jsonl").write_bytes(b'{"_id": "q1", "text": "panda"}\n{"_id": "q2", "text": 2}\nno\n')
    made = []
    for size in (1, 4, 100):
        output = {"path": str(folder / str(size)), "keep_columns": {"hue": "color"}, "top_k": 50}
        summary = make(config(folder, shard_passages=size, output=output))
        assert (summary.passages, summary.queries, summary.candidates) == (15, 1, 15)
        assert summary.rejected == {
            "invalid_id": 2, "invalid_text": 9, "malformed_row": 4, "null_passage_id": 1
        }  # fmt: skip
        assert summary.passages + summary.queries + sum(summary.rejected.values()) == len(lines) + 3
        made.append(bytes_of(folder / str(size)))
    assert made[0] == made[1] == made[2]
    rejects = sorted(rows_of(folder, "4/rejects"), key=lambda row: (row["file"], row["row"]))
    columns = ("row", "passage_id", "reason", "field")
    passages = [
        tuple(row[name] for name in columns) for row in rejects if row["file"].endswith("corpus.jsonl")
    ]
    assert passages == [(2 * at, *told) for at, (_, *told) in enumerate(BAD_LINES, start=1)]
    queries = [row for row in rejects if row["file"].endswith("queries.jsonl")]
    assert [(row["row"], row["query_id"], row["reason"], row["field"]) for row in queries] == [
        (2, "q2", "invalid_text", "query"),
        (3, None, "malformed_row", None),
    ]


@pytest.mark.parametrize("name", ["corpus", "queries"])
def test_a_table_of_which_no_row_can_be_used_is_refused(folder: Path, name: str) -> None:
    write_jsonl(folder / f"{name}.jsonl", [{"_id": "p1", "text": ["x"]}, {"_id": None, "text": "panda"}])
    with pytest.raises(
        InputError, match=rf"{name}.jsonl: none of .* \(1 invalid_text, 1 null_\w+_id\); .*/out/rejects names"
    ):
        make(config(folder))
    assert len(rows_of(folder, "out/rejects")) == 2


def test_rerank_rejects_the_same_lines_for_the_same_reasons(folder: Path) -> None:
    lines = [GOOD_LINE % 0, *(line for line, *_ in BAD_LINES)]
    (folder / "corpus.jsonl").write_bytes(b"\n".join(lines))
    make(config(folder, output={"keep_columns": {"hue": "color"}}))
    pairs = [
        line.replace(b"{", b'{"query_id": "q1", "query": "panda", ', 1) if line != b"{oops" else line
        for line in lines
    ]
    (folder / "pairs.jsonl").write_bytes(b"\n".join(pairs))
    columns = {"passage_id": "_id", "passage": "text"}
    table = InputConfig.model_validate(
        {"path": str(folder / "pairs.jsonl"), "format": "jsonl", "columns": columns}
    )
    kept = {"hue": "color"}
    planned = plan_table(table, kept, 100)
    (shard,) = planned.shards
    _, refused = read_shard(shard, table, kept, planned)
    reranks = {row["row"]: (row["reason"], row["field"]) for row in refused.to_pylist()}
    firsts = {row["row"]: (row["reason"], row["field"]) for row in rows_of(folder, "out/rejects")}
    titles = {row for row, told in firsts.items() if told == ("invalid_text", "title")}
    assert len(titles) == 2  # which a candidate table does not have
    assert {row: told for row, told in firsts.items() if row not in titles} == reranks


@pytest.mark.parametrize(
    ("table_format", "content", "told"),
    [
        ("csv", b"_id,text\na,bear \xff\nb,panda\n", [(2, "a", "invalid_text", "passage")]),
        ("tsv", b"_id\ttext\n\xff\tbear\nb\tpanda\n", [(2, None, "invalid_text", "passage_id")]),
        (
            "csv",
            b"_id,text\na,bear,x,y\nb,panda\nc\n",
            [(2, None, "malformed_row", None), (4, None, "malformed_row", None)],
        ),
        (
            "tsv",
            b"_id\ttext\na\tbear\tx\nb\tpanda\nc\n",
            [(2, None, "malformed_row", None), (4, None, "malformed_row", None)],
        ),
        ("csv", b'_id,text\na,"be"ar\nb,panda\n', [(2, None, "malformed_row", None)]),
    ],
)
def test_a_bad_line_of_separated_fields_is_rejected(
    folder: Path, table_format: str, content: bytes, told: list[Any]
) -> None:
    (folder / f"p.{table_format}").write_bytes(content)
    passages = {"path": str(folder / f"p.{table_format}"), "format": table_format}
    summary = make(config(folder, passages=passages))
    assert found(rows_of(folder)) == [("q1", "b")]
    rejects = rows_of(folder, "out/rejects")
    columns = ("row", "passage_id", "reason", "field")
    assert [tuple(row[name] for name in columns) for row in rejects] == told
    assert (summary.passages, sum(summary.rejected.values())) == (1, len(told))


def test_ids_that_a_trec_run_can_not_hold_are_named_before_any_work(folder: Path) -> None:
    write_texts(folder, {"p1": "panda", "p 2": "panda"}, QUERIES)
    make(config(folder, output={"path": str(folder / "other")}))
    with pytest.raises(InputError, match=r"corpus.jsonl row 2: passage_id 'p 2' is empty, has blanks"):
        make(config(folder, output={"trec_run": True}))


def test_queries_that_are_passages_leave_themselves_out_on_request(folder: Path) -> None:
    write_jsonl(folder / "queries.jsonl", [{"_id": key, "text": text} for key, text in PASSAGES.items()])
    make(config(folder, leave_out_self=True, output={"top_k": 1}))
    assert found(rows_of(folder)) == [("p1", "p4"), ("p2", "p4"), ("p4", "p2")]
    table = pa.table({"_id": [1], "text": ["panda"]})
    pq.write_table(table, folder / "numbers.parquet")
    with pytest.raises(
        InputError, match="leave_out_self: ids of queries are int64, those of passages string"
    ):
        make(config(folder, leave_out_self=True, queries={"path": str(folder / "numbers.parquet")}))


def test_the_same_ids_may_be_integers_of_two_widths(folder: Path) -> None:
    for name, kind in (("a", pa.int64()), ("b", pa.int32())):
        pq.write_table(
            pa.table({"_id": pa.array([1, 2], kind), "text": ["panda"] * 2}), folder / f"{name}.parquet"
        )
    tables: dict[str, Any] = {
        "passages": {"path": str(folder / "a.parquet")},
        "queries": {"path": str(folder / "b.parquet")},
    }
    make(config(folder, leave_out_self=True, **tables))
    assert found(rows_of(folder)) == [(1, 2), (2, 1)]


def test_a_folder_that_holds_the_queries_too_is_refused(folder: Path) -> None:
    out = f"{folder}-out"
    with pytest.raises(
        InputError,
        match=r"passages.path=.*/corpus.jsonl; if the queries are passages themselves: leave_out_self",
    ):
        make(config(folder, passages={"path": str(folder), "format": "jsonl"}, output={"path": out}))
    assert not Path(out).exists()


@pytest.mark.parametrize("ids", [[3, 1, 2], [b"\xff3", b"\xff1", b"\xff2"]])
def test_ids_stay_what_they_are(folder: Path, ids: list[Any]) -> None:
    pq.write_table(pa.table({"_id": ids, "text": ["panda"] * 3}), folder / "corpus.parquet")
    make(config(folder, passages={"path": str(folder / "corpus.parquet")}))
    assert [row["passage_id"] for row in rows_of(folder)] == sorted(ids)


def test_a_start_goes_on_where_another_was_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"sources": BOTH, "shard_passages": 2}
    make(config(folder, output={"path": str(folder / "whole")}, **settings))
    done: list[str] = []

    def counted(task: Task, job: Any) -> Any:
        done.append(task.name)
        if len(done) % 4 == 0:
            raise KeyboardInterrupt
        return steps.do(task, job)

    monkeypatch.setattr("pipeline.retrieval.executors.here.do", counted)
    starts = 0
    while not (folder / "out/_SUCCESS").exists():
        starts += 1
        try:
            make(config(folder, **settings))
        except KeyboardInterrupt:
            continue
    assert starts > 3
    assert len(done) == len(set(done)) + starts - 1  # what was interrupted was done again, nothing else
    assert bytes_of(folder / "out") == bytes_of(folder / "whole")
    assert not (folder / "out/_work").exists()
    done.clear()
    assert make(config(folder, **settings)).as_text().startswith("Finished before, at 20")
    assert not done


def test_a_task_that_kills_every_process_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any, **__: Any) -> Any:
        raise SystemExit

    monkeypatch.setitem(steps.STEPS, "merge", killed)
    monkeypatch.setattr("pipeline.tables.output.attempts.Directory.remove_file", lambda *_: None)
    for _ in range(3):
        with pytest.raises(SystemExit):
            make(config(folder))
    with pytest.raises(
        TemporaryError, match=r"merge-000000-000000 was given up after 3 processes died of it"
    ):
        make(config(folder))


def test_what_changed_is_refused_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(steps.STEPS, "search", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make(config(folder))
    with pytest.raises(OutputError, match=r"sources.bm25.bm25.k1: was 0.9, is 1.2") as refused:
        make(config(folder, sources={"bm25": {"bm25": {"k1": 1.2}}}))
    assert "reuse" not in str(refused.value)  # there are no embeddings to take
    write_texts(folder, {**PASSAGES, "p5": "new"}, QUERIES)
    with pytest.raises(OutputError, match=r"(?s)earlier state of this one.*corpus.jsonl: was .*Take another"):
        make(config(folder))


def test_a_query_may_be_long_and_passages_few(folder: Path) -> None:
    write_texts(folder, {"p1": "panda"}, {"q1": "panda " * 20_000, "q2": "panda"})
    make(config(folder, sources=BOTH))
    assert found(rows_of(folder)) == [("q1", "p1"), ("q2", "p1")]


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    command = ["--config", "configs/retrieve/demo.yaml", "--set", f"output.path={tmp_path}/out"]
    assert main([*command, "--dry-run"]) == 0
    assert "sources    bm25, minilm" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert main(command) == 0
    assert "640 candidates of 32 queries found among 349 passages" in capsys.readouterr().out
    plan = plan_table(InputConfig(path=str(tmp_path / "out/candidates")), {}, 1000)
    assert sum(shard.pairs for shard in plan.shards) == 640
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert (summary["embedded"], summary["queries"]) == (381, 32)
    assert status.main(["--output", f"{tmp_path}/out"]) == 0
    told = capsys.readouterr().out
    assert "pairs    660 candidates at most" in told  # of 33 queries, one of which has no text
    assert re.search(r"^speed    [\d.]+ candidates/s in this start$", told, re.MULTILINE)
    assert main([*command, "--set", "fusion.weights.colbert=2"]) == 2
    assert "fusion.weights: there is no source colbert; there is bm25, minilm" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("sources: {a: {}}", "sources.a: needs either bm25 or dense"),
        ("sources: {}", "sources: "),
        ("sources: {A-b: {bm25: {}}}", "sources.A-b: a name is made of a-z"),
        (f"sources: {{{65 * 'a'}: {{bm25: {{}}}}}}", f"sources.{65 * 'a'}: .* 64 characters at most"),
        (f"sources: {{a: {{bm25: {{}}, top_k: {2**31}}}}}", "sources.a.top_k: .* 2147483647, not 2147483648"),
        (
            "sources: {a: {bm25: {stemer: x}}}",
            "sources.a.bm25.stemer: there is no such field; the fields here are stop_words, stemming, k1, b$",
        ),
        (
            "sources: {a: {bm25: {}}}\nactors: {num_gpus: 0.5}",
            "actors.num_gpus 0.5 holds GPUs that no source uses: bm25 computes on CPUs; leave it out",
        ),
        ("sources: {a: {bm25: {stemming: x}}}", "sources.a.bm25.stemming: needs one of arabic"),
    ],
)
def test_mistakes_in_the_config_are_named(tmp_path: Path, lines: str, message: str) -> None:
    rest = "passages: {path: x}\nqueries: {path: y}\noutput: {path: z}\n"
    (tmp_path / "a.yaml").write_text(f"{rest}{lines}\n")
    with pytest.raises(ConfigError, match=message):
        load(RetrieveConfig, tmp_path / "a.yaml", [])
