from pathlib import Path

import pytest

from pipeline.errors import InputError, OutputError
from pipeline.output import finish, write_record
from pipeline.reranking.reuse import check_previous
from pipeline.tables.output.directory import Directory
from tests.reporting.reports import summary
from tests.test_output import RECORD as ANY

CONFIG = {"scorer.dtype": "float32", "scorer.device": "cpu", "shard_pairs": 8}
RECORD = ANY.model_copy(update={"config": CONFIG})


@pytest.fixture
def previous(tmp_path: Path) -> Directory:
    """A finished run."""
    output = Directory(str(tmp_path / "previous"))
    write_record(output, RECORD)
    finish(output, summary(), [], complete=True)
    return output


def test_a_run_of_the_same_scorer_is_taken(previous: Directory) -> None:
    check_previous(previous.url, RECORD)
    moved = RECORD.model_copy(update={"config": CONFIG | {"scorer.device": "cuda", "shard_pairs": 9}})
    check_previous(previous.url, moved)


def test_one_of_another_scorer_is_refused(previous: Directory) -> None:
    other = RECORD.model_copy(update={"config": CONFIG | {"scorer.dtype": "float16"}})
    with pytest.raises(InputError, match=r"another scorer's \(scorer.dtype was 'float32', is 'float16'\)"):
        check_previous(previous.url, other)
    with pytest.raises(InputError, match="the model's weights or files differ"):
        check_previous(previous.url, RECORD.model_copy(update={"models": {"scorer": "n"}}))


def test_what_is_no_finished_run_is_refused(previous: Directory, tmp_path: Path) -> None:
    prepared = Directory(str(tmp_path / "prepared"))
    write_record(prepared, RECORD.model_copy(update={"command": "prepare"}))
    finish(prepared, summary(), [], complete=True)
    previous.write("summary.json", b"{")
    with pytest.raises(InputError, match=r"previous/summary.json: is damaged; start its job again"):
        check_previous(previous.url, RECORD)
    previous.remove_file("summary.json")
    for nothing in (previous.url, prepared.url, f"{previous.url}/nowhere"):
        with pytest.raises(InputError, match=r"no finished run.*leave reuse out"):
            check_previous(nothing, RECORD)


def test_one_of_another_format_is_refused(previous: Directory) -> None:
    write_record(previous, RECORD.model_copy(update={"format_version": 99}))
    with pytest.raises(OutputError, match="was written by a newer version of this program"):
        check_previous(previous.url, RECORD)
