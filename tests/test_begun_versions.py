"""Jobs on tables that change while they run: each goes on with the version that it began with."""

import sys
from pathlib import Path
from typing import Any

import deltalake
import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.begun_versions import with_begun_versions
from pipeline.errors import InputError, LateError, OutputError
from pipeline.finetuning.config import FinetuneConfig
from pipeline.job_record import JobRecord, known_versions, write_record
from pipeline.preparation import flow as preparation
from pipeline.preparation.config import PrepareConfig
from pipeline.reranking import flow as reranking
from pipeline.retrieval import flow, steps
from pipeline.retrieval.config import RetrieveConfig
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.format_version import FORMAT_VERSION
from pipeline.tables.table_files import TableVersion
from tests.reranking.jobs import config as rerank_config
from tests.retrieval.tables import bytes_of, config, make, rows_of
from tests.tables.conftest import rows

PASSAGES = [{"_id": f"p{n}", "text": f"the panda number {n}", "lang": "en"} for n in range(6)]
QUERIES = [{"_id": "q1", "text": "which panda"}, {"_id": "q2", "text": "number 3"}]
NEWS = [{"_id": "news", "text": "a panda was born", "lang": "en"}]


def write(path: Path, table: list[dict[str, Any]], mode: Any = "append") -> None:
    deltalake.write_deltalake(str(path), pa.Table.from_pylist(table), mode=mode)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "passages", PASSAGES)
    lance.write_dataset(pa.Table.from_pylist(QUERIES), str(tmp_path / "queries"))
    return tmp_path


def retrieve(
    folder: Path, out: str = "out", path: str | None = None, columns: Any = None, **fields: Any
) -> RetrieveConfig:
    more = {} if columns is None else {"columns": columns}
    return config(
        folder,
        passages={"path": path or str(folder / "passages"), "format": "delta", **more},
        queries={"path": str(folder / "queries"), "format": "lance"},
        output={"path": str(folder / out), "keep_columns": {"lang": "lang"}},
        shard_passages=2,
        **fields,
    )


def killed(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def test_a_first_stage_goes_on_with_the_versions_it_began_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    make(retrieve(folder, "whole"))
    with monkeypatch.context() as patched:
        patched.setitem(steps.STEPS, "search", killed)
        with pytest.raises(KeyboardInterrupt):
            make(retrieve(folder))
    write(folder / "passages", NEWS)
    lance.dataset(str(folder / "queries")).delete("_id = 'q1'")
    with pytest.raises(InputError, match=r"no column 'wrong'; it has _id, text, lang\. .*columns$"):
        make(retrieve(folder, columns={"text": "wrong"}))
    assert "version 0, 1 files, about 6 rows" in flow.describe(retrieve(folder))
    assert "version 0, 1 files" in flow.describe(retrieve(folder, path=f"{folder}/passages/"))
    assert make(retrieve(folder)).finished_before is None
    told = f"this job began with a version of its table of=passages path={folder}/passages version=0"
    assert told in caplog.text
    assert bytes_of(folder / "out") == bytes_of(folder / "whole")
    assert {row["query_id"] for row in rows_of(folder)} == {"q1", "q2"}
    assert {row["lang"] for row in rows_of(folder)} == {"en"}
    # A finished one is that of another state now, and tells which.
    with pytest.raises(
        OutputError, match=r"(?s)passages.version: was 0, is 1\n  queries.version: was 1, is 2"
    ):
        make(retrieve(folder))
    new = make(retrieve(folder, "new"))
    assert (new.passages, new.queries) == (7, 1)


def test_a_version_that_is_gone_is_told_with_the_way_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(steps.STEPS, "search", killed)
    late = retrieve(folder, path=f"{folder}/{{run_date}}", run_date="2026-11-27")
    write(folder / "2026-11-27", PASSAGES)
    with pytest.raises(KeyboardInterrupt):
        make(late)
    for file in (folder / "2026-11-27").glob("*.parquet"):
        file.unlink()
    way_out = (
        rf"{folder}/2026-11-27: version 0 can't be read: .*no such file\. This job began with version 0: "
    )
    with pytest.raises(InputError, match=way_out):  # and no LateError: to wait would not help
        make(late)
    (folder / "2026-11-27/_delta_log/00000000000000000000.json").unlink()
    with pytest.raises(InputError, match="This job began with"):
        make(late)
    with pytest.raises(LateError):
        make(retrieve(folder, "b", path=f"{folder}/{{run_date}}", run_date="2026-11-27"))


def test_what_is_no_matter_of_the_version_is_told_as_that(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(steps.STEPS, "search", killed)
    with pytest.raises(KeyboardInterrupt):
        make(retrieve(folder))
    write(folder / "passages", NEWS)

    def forbidden(*_: Any, **__: Any) -> Any:
        raise OSError("Client error with status 403 Forbidden: ExpiredToken")

    with monkeypatch.context() as patched:
        patched.setattr(deltalake, "DeltaTable", forbidden)
        with pytest.raises(InputError, match="ExpiredToken$"):
            make(retrieve(folder))
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "deltalake", None)
        with pytest.raises(InputError, match=r"pip install 'rayrank\[delta\]'$"):
            make(retrieve(folder))


def test_a_finished_output_whose_version_is_gone_is_left_alone(folder: Path) -> None:
    night = retrieve(folder, "out/{run_date}", run_date="2026-11-27")
    make(night)
    write(folder / "passages", PASSAGES[:3], mode="overwrite")
    deltalake.DeltaTable(str(folder / "passages")).vacuum(0, dry_run=False, enforce_retention_duration=False)
    told = r"version 0 can't be read: .*out/2026-11-27 is finished and was made of it.*Leave the output alone"
    with pytest.raises(InputError, match=told):
        make(night)


def test_all_starts_of_a_date_are_the_same_job(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    night = retrieve(folder, "out/{run_date}", run_date="2026-11-27")
    make(night)
    write(folder / "passages", NEWS)
    assert make(night).finished_before
    assert "this job began with a version of its table of=passages" in caplog.text
    assert make(retrieve(folder, "out/{run_date}", run_date="2026-11-28")).passages == 7
    # An output without the date is not that of one.
    dated = {"path": f"{folder}/{{run_date}}", "run_date": "2026-11-28"}
    write(folder / "2026-11-28", PASSAGES)
    make(retrieve(folder, "one", **dated))
    write(folder / "2026-11-28", NEWS)
    with pytest.raises(OutputError, match="passages.version: was 0, is 1"):
        make(retrieve(folder, "one", **dated))
    prepared = {
        "candidates": {"path": str(folder / "out/2026-11-27/candidates")},
        "passages": {"path": str(folder / "passages"), "format": "delta"},
        "output": {"path": str(folder / "prepared/{run_date}")},
        "executor": "here",
        "run_date": "2026-11-27",
    }
    pq.write_table(
        pa.table({"query_id": ["q"], "query": ["a"], "passage_id": ["p1"]}), folder / "pairs.parquet"
    )
    prepared["candidates"] = {"path": str(folder / "pairs.parquet")}
    preparation.run(PrepareConfig.model_validate(prepared))
    write(folder / "passages", NEWS)
    assert preparation.run(PrepareConfig.model_validate(prepared)).finished_before


def test_a_rerank_goes_on_with_the_version_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "t"
    write(table, rows(queries=4))
    job = rerank_config(table, input={"path": str(table), "format": "delta"}, shard_pairs=4)
    with monkeypatch.context() as patched:
        patched.setattr(reranking, "_finish", killed)
        with pytest.raises(KeyboardInterrupt):
            reranking.run(job)
    write(table, rows(queries=1), mode="overwrite")
    assert reranking.run(job).pairs == 12
    with pytest.raises(OutputError, match=r"\n  input.version: was 0, is 1\n"):
        reranking.run(job)
    pinned = rerank_config(table, input={"path": str(table), "format": "delta", "version": 0}, shard_pairs=4)
    assert reranking.run(pinned).finished_before


def test_a_preparation_begins_anew_with_the_latest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"query_id": ["q1"], "passage_id": ["news"]}), folder / "pairs.parquet")
    job = PrepareConfig.model_validate(
        {
            "candidates": {"path": str(folder / "pairs.parquet")},
            "passages": {"path": str(folder / "passages"), "format": "delta"},
            "queries": {"path": str(folder / "queries"), "format": "lance"},
            "output": {"path": str(folder / "out")},
            "executor": "here",
        }
    )
    with monkeypatch.context() as patched:
        patched.setattr(preparation, "_finish", killed)
        with pytest.raises(KeyboardInterrupt):
            preparation.run(job)
    write(folder / "passages", NEWS)
    assert preparation.run(job).written == 1
    assert [row["passage"] for row in rows_of(folder)] == ["a panda was born"]
    write(folder / "passages", PASSAGES[:1])
    with pytest.raises(OutputError, match=r"\n  passages.version: was 1, is 2\n"):
        preparation.run(job)


def test_any_table_of_a_config_gets_its_version(tmp_path: Path) -> None:
    def training(**candidates: Any) -> FinetuneConfig:
        table = {"path": "/t", "format": "delta", **candidates}
        settings = {"scorer": {"model": "m"}, "output": {"path": "/o"}, "data": {"path": "/rows"}}
        held_out = {"candidates": table, "qrels": "/qrels"}
        return FinetuneConfig.model_validate({**settings, "held_out": held_out})

    def version(config: FinetuneConfig) -> int | None:
        with with_begun_versions(config, output, "finetune", ["model"]) as versioned:
            assert versioned.held_out is not None
            assert versioned.determining_fields() == config.determining_fields()
            return versioned.held_out.candidates.version

    output, was = Directory(str(tmp_path)), TableVersion(path="/t", version=3)
    versions = known_versions({"held_out.candidates": was, "data.mined.input": None})
    write_record(
        output,
        JobRecord(
            format_version=FORMAT_VERSION,
            command="finetune",
            config={},
            models={},
            files={},
            shards=1,
            pairs=1,
            versions=versions,
        ),
    )
    assert version(training()) is None  # nothing was done yet
    output.write("model/part", b"x")
    assert version(training()) == 3
    assert version(training(version=5)) == 5
    assert version(training(path="/another")) is None
    output.write("_SUCCESS", b"")
    assert version(training()) is None
