from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import InputError
from pipeline.tables.positives import PositivesConfig, are_positive, check_label


def table(ids: pa.Array, labels: list[Any]) -> pa.Table:
    rows = {"query_id": ids, "passage_id": ids, "rank": range(1, len(ids) + 1), "kept": labels}
    return pa.table(rows)


@pytest.mark.parametrize(
    ("labels", "positive"),
    [
        ([1, 0, None, -2], [True, False, False, False]),
        ([0.5, 0.0, None, 3.0], [True, False, False, True]),
        ([True, False, None, True], [True, False, False, True]),
    ],
)
def test_labels_above_0(labels: list[Any], positive: list[bool]) -> None:
    config = PositivesConfig(label="good")
    rows = table(pa.array(["a", "b", "c", "d"]), [{"good": label} for label in labels])
    check_label("good", rows.schema.field("kept").type, "label")
    assert are_positive(rows, config).tolist() == positive


@pytest.mark.parametrize("ids", [pa.array(["1", "2"]), pa.array([1, 2]), pa.array([b"1", b"\xff"])])
def test_qrels_judge_ids_of_any_type(tmp_path: Path, ids: pa.Array) -> None:
    qrels = tmp_path / "qrels"
    qrels.write_text("1 0 1 2\n2 0 2 0\n2 0 1 1\n")
    config = PositivesConfig(qrels=str(qrels))
    assert [file.url for file in config.files()] == [str(qrels)]
    assert are_positive(table(ids, [{}, {}]), config).tolist() == [True, False]
    qrels.write_text("2 0 2 1\n2 0 1 1\n")
    assert not are_positive(table(ids, [{}, {}]), config)[0]  # of the next job in this process


def test_qrels_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert PositivesConfig(qrels="qrels").for_workers().qrels == f"{tmp_path}/qrels"
    assert PositivesConfig(first=1).for_workers() == PositivesConfig(first=1)
    with pytest.raises(InputError, match="qrels: no such file"):
        PositivesConfig(qrels="qrels").files()
