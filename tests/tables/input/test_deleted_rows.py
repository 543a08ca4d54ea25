import numpy as np
import pytest
from pydantic import TypeAdapter

from pipeline.tables.input.deleted_rows import DeletedRows, kept
from pipeline.tables.input.shards import FileRange, Shard

POSITIONS = np.array([0, 3, 4, 9, 2**40])


def test_positions_come_back() -> None:
    deleted = DeletedRows.at(POSITIONS)
    assert deleted.count == 5
    assert deleted.positions().tolist() == POSITIONS.tolist()
    with pytest.raises(ValueError, match="read-only"):
        deleted.positions()[0] = 1  # what another file of the same deletions would see
    assert DeletedRows.at(POSITIONS[:0]) == DeletedRows()
    assert DeletedRows().positions().tolist() == []


def test_ranges_take_what_is_deleted_in_them() -> None:
    deleted = DeletedRows.at(POSITIONS)
    assert deleted.within(0, 4).positions().tolist() == [0, 3]
    assert deleted.within(4, 10) == DeletedRows.at(POSITIONS[2:4])
    assert deleted.within(5, 9) == DeletedRows()
    assert DeletedRows().within(0, 4) == DeletedRows()


@pytest.mark.parametrize("known", [DeletedRows.at(POSITIONS), DeletedRows.at(POSITIONS).within(3, 7)])
def test_the_others_are_kept(known: DeletedRows) -> None:
    assert kept(known.positions(), 3, 7).tolist() == [False, False, True, True]
    assert kept(DeletedRows().positions(), 3, 5).tolist() == [True, True]


def test_others_have_another_digest() -> None:
    one, other = DeletedRows.at(POSITIONS), DeletedRows.at(POSITIONS + 1)
    assert one.digest() != other.digest()
    assert one.digest() == DeletedRows.at(POSITIONS.copy()).digest()


def test_they_travel_as_json_and_in_little_room() -> None:
    every_hundredth = DeletedRows.at(np.flatnonzero(np.random.default_rng(0).random(1_000_000) < 0.01))
    one = FileRange(file="f", identity="i", start=0, stop=1, first_row=1, deleted=every_hundredth)
    adapter = TypeAdapter(FileRange)
    text = adapter.dump_json(one)
    assert adapter.validate_json(text) == one
    assert len(text) < 3 * every_hundredth.count
    shard = Shard(index=0, file_ranges=(one,), queries=1, candidates=1, pairs=1)
    assert Shard.model_validate_json(shard.model_dump_json()) == shard
