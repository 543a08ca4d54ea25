"""Tables of many small files: one task reads neighbours, to shards of the same size as of a large file."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import OutputError
from pipeline.job_record import JobRecord, read_record, write_record
from pipeline.retrieval.plan import plan
from tests.retrieval.tables import config, make, rows_of, write_texts

PASSAGES = {"p1": "the giant panda is a bear", "p2": "a bridge of stone", "p3": "", "p4": "panda bridge"}
QUERIES = {"q1": "panda", "q2": "stone bridge", "q3": "unheard!"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_texts(tmp_path, PASSAGES, QUERIES)
    (tmp_path / "parts").mkdir()
    for number, line in enumerate((tmp_path / "corpus.jsonl").read_text().splitlines()):
        broken = "{oops\n" if number == 2 else ""
        (tmp_path / f"parts/part-{number}.jsonl").write_text(f"{broken}{line}\n")
    return tmp_path


def of_parts(folder: Path, **sections: Any) -> Any:
    return config(folder, passages={"path": str(folder / "parts"), "format": "jsonl"}, **sections)


def test_small_files_give_what_one_file_gives(folder: Path) -> None:
    make(config(folder, output={"path": str(folder / "one")}))
    summary = make(of_parts(folder))
    assert rows_of(folder) == rows_of(folder, "one/candidates")
    assert summary.rejected == {"malformed_row": 1}
    [reject] = rows_of(folder, "out/rejects")
    assert (reject["file"], reject["row"]) == (f"{folder}/parts/part-2.jsonl", 1)


def test_as_many_are_read_together_as_fit_into_a_shard(folder: Path) -> None:
    def reads(shard_passages: int) -> list[int]:
        job = plan(of_parts(folder, shard_passages=shard_passages))
        return [len(ranges) for ranges in job.read_together("passages")]

    assert reads(100) == [4]
    assert reads(1) == [1] * 4
    assert (sum(reads(2)), max(reads(2))) == (4, 2)


def test_a_first_stage_that_read_them_one_by_one_is_another_job(folder: Path) -> None:
    job = of_parts(folder)
    make(job)
    record = read_record(plan(job).output)
    assert record is not None
    fields = record.model_dump()
    del fields["config"]["small_files"]
    write_record(plan(job).output, JobRecord.model_validate(fields))
    with pytest.raises(OutputError, match='small_files: was not given, is "read together"'):
        make(job)
